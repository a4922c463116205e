// When work runs. A stream is a queue: work runs in its order and behind the events it waits for,
// and for the rest when it suits the device. SOFTGPU_ASYNC says when that is:
//
// * early, the default: when it is queued. Each queue is empty between calls. * late: when the host
// waits for it, or a stream that it waits for does. What relies on luck reads old memory, or copies
// from pinned
//   memory what was written there since.
// * a number: at random, the number being the seed. Streams that can go on do so more or less
// eagerly.
#include "queue.h"

#include <stdlib.h>
#include <string.h>

#include <chrono>
#include <utility>

namespace softgpu {

thread_local int strict_captures = 0;

namespace {

enum Mode { EARLY, LATE, RANDOM };

Mode mode() {
    static const Mode mode = [] {
        const char* text = getenv("SOFTGPU_ASYNC");
        if (!text || !*text || !strcmp(text, "early")) return EARLY;
        return strcmp(text, "late") ? RANDOM : LATE;
    }();
    return mode;
}

// Whose work this thread runs.
thread_local Context* running = nullptr;

bool ready(const Stream& stream) {
    return !stream.queue.empty() &&
           (!stream.queue.front().after || stream.queue.front().after->reached);
}

// One item of a stream that is ready. After a fault nothing runs in this context any more.
void step(Stream& stream) {
    Item item = std::move(stream.queue.front());
    stream.queue.pop_front();
    running = &stream.context;
    const Result result = item.work ? item.work() : Success;
    if (result != Success) {
        stream.context.fault = result;
        for (Stream* each : stream.context.streams) each->queue.clear();
        return;
    }
    if (!item.reaches) return;
    item.reaches->reach();
}

// splitmix64
uint64_t random(Context& context) {
    uint64_t z = (context.random += 0x9e3779b97f4a7c15) + uint64_t(environment("SOFTGPU_ASYNC", 0));
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

// Lets streams that can go on do so, as far as each is eager and chance wills.
void wander(Context& context) {
    for (Stream* stream : context.streams) {
        while (ready(*stream) && random(context) % 3 < stream->eager) step(*stream);
    }
}

// The next item of `stream`, behind what it waits for.
void advance(Stream& stream) {
    if (mode() == RANDOM) wander(stream.context);
    if (stream.queue.empty()) return;
    if (!ready(stream)) run_until(stream.queue.front().after);
    if (ready(stream)) step(stream);
}

// What is queued on `later` from now on runs behind what is queued on `earlier`.
void order(Stream& earlier, Stream& later) {
    if (earlier.queue.empty()) return;
    const auto mark = std::make_shared<Mark>(Mark{earlier});
    earlier.queue.push_back({nullptr, nullptr, mark});
    later.queue.push_back({mark, nullptr, nullptr});
}

}  // namespace

void Mark::reach() {
    static const bool alone = getenv("SOFTGPU_CLOCK") != nullptr;
    const auto host = std::chrono::steady_clock::now().time_since_epoch();
    const double now = alone ? 0 : std::chrono::duration<double, std::milli>(host).count();
    milliseconds = now + stream.context.simulated;
    reached = true;
}

Stream::Stream(Context& context, bool blocking)
    : Handle(STREAM, context), blocking(blocking), eager(random(context) % 4) {
    // The context's own is nobody's to destroy.
    if (context.streams.empty()) --context.alive[STREAM];
    context.streams.push_back(this);
}

Stream* stream_of(void* handle, Context& context, const char* call) {
    if (reinterpret_cast<uintptr_t>(handle) <= 2) return context.streams[0];
    Stream* stream = static_cast<Stream*>(handle);
    return good(stream, Handle::STREAM, context, call) ? stream : nullptr;
}

void run_until(std::shared_ptr<Mark> mark) {
    while (!mark->reached && !mark->stream.context.fault) advance(mark->stream);
}

void drain(Stream& stream) {
    while (!stream.queue.empty()) advance(stream);
}

void drain(Context& context) {
    for (Stream* stream : context.streams) drain(*stream);
}

void poll(Stream& stream) {
    if (!stream.queue.empty()) advance(stream);
}

void push(Stream& stream, Item item) {
    Context& context = stream.context;
    Stream& standard = *context.streams[0];
    if (&stream == &standard) {
        for (Stream* other : context.streams) {
            if (other != &stream && other->blocking) order(*other, stream);
        }
    } else if (stream.blocking) {
        order(standard, stream);
    }
    stream.queue.push_back(std::move(item));
    if (mode() == EARLY) drain(stream);
    if (mode() == RANDOM) wander(context);
}

Result submit(Stream& stream, Work work) {
    static const bool waits = environment("CUDA_LAUNCH_BLOCKING", 0);
    if (stream.capture) {
        if (stream.capture->broken) return CaptureInvalidated;
        stream.capture->graph->work.push_back(std::move(work));
        return Success;
    }
    if (&stream == stream.context.streams[0] && strict_captures) return CaptureImplicit;
    push(stream, {nullptr, std::move(work), nullptr});
    if (!waits) return Success;
    drain(stream);
    return stream.context.fault;
}

bool forbidden_in_capture(const char* call) {
    if (!strict_captures) return false;
    complain("%s during a stream capture", call);
    return true;
}

std::shared_ptr<Capture> forget_capture(Stream& stream) {
    if (!stream.capture || stream.capture->origin != &stream) return nullptr;
    const std::shared_ptr<Capture> capture = std::exchange(stream.capture, nullptr);
    for (Stream* joined : capture->joined) joined->capture = nullptr;
    strict_captures -= capture->strict;
    return capture;
}

}  // namespace softgpu

using namespace softgpu;

// For work that runs: lets it take so much longer by the clock of events.
API softgpu_elapse(double microseconds) {
    if (running) running->simulated += microseconds / 1000;
    return Success;
}
