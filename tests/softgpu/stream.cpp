// Streams, events and graphs of the driver API. Streams and events are in order by themselves, as work runs when it is submitted; a
// stream that captures keeps closures, and a graph launch plays them.
#include "stream.h"

#include <stdint.h>

#include <chrono>
#include <memory>
#include <utility>
#include <vector>

namespace softgpu {

thread_local bool context_is_current = false;

namespace {

struct Graph {
    std::vector<Work> work;
};

struct Capture {
    std::shared_ptr<Graph> graph = std::make_shared<Graph>();
    struct Stream* origin;
    std::vector<struct Stream*> joined;
    bool strict = false;
    bool broken = false;
};

struct Stream {
    std::shared_ptr<Capture> capture;
    Result pending = Success;
};

struct Event {
    bool recorded = false, captured = false;
    std::weak_ptr<Capture> capture;
    double milliseconds = 0;
};

// The default stream. NOTE: one per host thread, so that tests that run side by side do not see each other's errors.
thread_local Stream default_stream;
thread_local Result pending = Success;
// Captures this thread began that forbid what could wait for the device.
thread_local int strict_captures = 0;

// What this thread's work took on top of the host's time, in milliseconds.
thread_local double simulated = 0;

double now() {
    const auto host = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double, std::milli>(host).count() + simulated;
}

// Streams 0, 1 and 2 are the default ones.
Stream& stream_of(void* handle) {
    return reinterpret_cast<uintptr_t>(handle) <= 2 ? default_stream : *static_cast<Stream*>(handle);
}

Result note(Stream& stream, Result result) {
    if (result != Success) stream.pending = pending = result;
    return result;
}

int synchronize(Stream& stream) {
    if (stream.capture) {
        complain("synchronisation with a stream that captures");
        stream.capture->broken = true;
        return CaptureUnsupported;
    }
    const Result result = std::exchange(stream.pending, Success);
    if (result != Success) pending = Success;
    return result;
}

Result play(const Graph& graph) {
    for (const Work& work : graph.work) {
        const Result result = work();
        if (result != Success) return result;
    }
    return Success;
}

}  // namespace

int submit(void* handle, Work work) {
    Stream& stream = stream_of(handle);
    if (stream.capture) {
        stream.capture->graph->work.push_back(std::move(work));
        return Success;
    }
    if (&stream == &default_stream && strict_captures) return CaptureImplicit;
    return note(stream, work());
}

bool forbidden_in_capture(const char* call) {
    if (!strict_captures) return false;
    complain("%s during a stream capture", call);
    return true;
}

Result take_pending() {
    default_stream.pending = Success;
    return std::exchange(pending, Success);
}

}  // namespace softgpu

using namespace softgpu;

API cuLaunchHostFunc(void* stream, void (*function)(void*), void* data) {
    return submit(stream, [=] {
        function(data);
        return Success;
    });
}

// Work of another library on this stream, as the cuDNN stand-in has it. `drop` is called once `arg` is of no more use.
API softgpu_submit(void* stream, void (*function)(void*), void* arg, void (*drop)(void*)) {
    const std::shared_ptr<void> held(arg, [drop](void* p) {
        if (drop) drop(p);
    });
    return submit(stream, [function, held] {
        function(held.get());
        return Success;
    });
}

// For work that runs: lets it take so much longer by the clock of events.
API softgpu_elapse(double microseconds) {
    simulated += microseconds / 1000;
    return Success;
}

// Whether `stream` captures: what is used for the first time must not be loaded then.
API softgpu_capturing(void* stream) { return stream_of(stream).capture != nullptr; }

// --- streams and events

API cuStreamCreate(Stream** stream, unsigned) {
    if (!context_is_current) return InvalidContext;
    *stream = new Stream;
    return Success;
}
API cuStreamCreateWithPriority(Stream** stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }
API cuStreamDestroy_v2(Stream* stream) {
    delete stream;
    return Success;
}
API cuStreamSynchronize(void* stream) { return synchronize(stream_of(stream)); }
API cuStreamQuery(void* stream) { return synchronize(stream_of(stream)); }

API cuEventCreate(Event** event, unsigned) {
    *event = new Event;
    return Success;
}
API cuEventDestroy_v2(Event* event) {
    delete event;
    return Success;
}
API cuEventRecord(Event* event, void* stream) {
    event->capture = stream_of(stream).capture;
    event->captured = stream_of(stream).capture != nullptr;
    event->recorded = !event->captured;
    event->milliseconds = now();
    return Success;
}
API cuEventSynchronize(Event* event) { return event->captured ? CaptureUnsupported : Success; }
API cuEventQuery(Event* event) { return event->captured ? CaptureUnsupported : Success; }
API cuEventElapsedTime_v2(float* milliseconds, Event* start, Event* end) {
    if (!start->recorded || !end->recorded) return InvalidHandle;
    *milliseconds = float(end->milliseconds - start->milliseconds);
    return Success;
}
API cuEventElapsedTime(float* milliseconds, Event* start, Event* end) { return cuEventElapsedTime_v2(milliseconds, start, end); }

// A stream that waits for an event of a capture joins the capture.
API cuStreamWaitEvent(void* handle, Event* event, unsigned) {
    Stream& stream = stream_of(handle);
    const std::shared_ptr<Capture> capture = event->capture.lock();
    if (capture && !stream.capture) {
        stream.capture = capture;
        capture->joined.push_back(&stream);
    }
    return Success;
}

// --- graphs

API cuStreamBeginCapture_v2(void* handle, int mode) {
    constexpr int RELAXED = 2;
    Stream& stream = stream_of(handle);
    if (stream.capture || &stream == &default_stream) return CaptureUnsupported;
    stream.capture = std::make_shared<Capture>();
    stream.capture->origin = &stream;
    stream.capture->strict = mode != RELAXED;
    strict_captures += stream.capture->strict;
    return Success;
}

API cuStreamEndCapture(void* handle, std::shared_ptr<Graph>** graph) {
    Stream& stream = stream_of(handle);
    *graph = nullptr;
    if (!stream.capture || stream.capture->origin != &stream) return InvalidValue;
    const std::shared_ptr<Capture> capture = std::exchange(stream.capture, nullptr);
    for (Stream* joined : capture->joined) joined->capture = nullptr;
    strict_captures -= capture->strict;
    if (capture->broken || fails_now("SOFTGPU_FAIL_CAPTURE")) return CaptureInvalidated;
    *graph = new std::shared_ptr<Graph>(capture->graph);
    return Success;
}

API cuStreamIsCapturing(void* stream, int* status) {
    const Capture* capture = stream_of(stream).capture.get();
    *status = !capture ? 0 : capture->broken ? 2 : 1;
    return Success;
}

API cuGraphInstantiateWithFlags(std::shared_ptr<Graph>** executable, std::shared_ptr<Graph>* graph, unsigned long long) {
    if (fails_now("SOFTGPU_FAIL_INSTANTIATE")) return OutOfMemory;
    *executable = new std::shared_ptr<Graph>(*graph);
    return Success;
}
API cuGraphUpload(void*, void*) { return Success; }
API cuGraphLaunch(std::shared_ptr<Graph>* executable, void* stream) {
    if (!context_is_current) return InvalidContext;
    return submit(stream, [graph = *executable] { return play(*graph); });
}
API cuGraphExecDestroy(std::shared_ptr<Graph>* executable) {
    delete executable;
    return Success;
}
API cuGraphDestroy(std::shared_ptr<Graph>* graph) {
    delete graph;
    return Success;
}

