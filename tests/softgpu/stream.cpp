// Streams and events of the driver API.
#include <stdint.h>

#include "queue.h"

namespace softgpu {

namespace {

struct Event : Handle {
    Event(Context& context, bool timed) : Handle(EVENT, context), timed(timed) {}

    const bool timed;
    // Where it was recorded last: in a queue, or in a capture.
    std::shared_ptr<Mark> mark;
    std::weak_ptr<Capture> capture;
    bool captured = false;
};

}  // namespace

}  // namespace softgpu

using namespace softgpu;

#define STREAM_OF(handle, call)                             \
    Stream* const found = stream_of(handle, context, call); \
    if (!found) return InvalidHandle;                       \
    Stream& stream = *found

// --- work of others

API cuLaunchHostFunc(void* handle, void (*function)(void*), void* data) {
    ENTER("cuLaunchHostFunc");
    STREAM_OF(handle, "cuLaunchHostFunc");
    return submit(stream, [=] {
        function(data);
        return Success;
    });
}

// Work of another library on this stream, as the cuDNN stand-in has it. `drop` is called once `arg`
// is of no more use.
API softgpu_submit(void* handle, void (*function)(void*), void* arg, void (*drop)(void*)) {
    const std::shared_ptr<void> held(arg, [drop](void* p) {
        if (drop) drop(p);
    });
    ENTER("softgpu_submit");
    STREAM_OF(handle, "softgpu_submit");
    return submit(stream, [function, held] {
        function(held.get());
        return Success;
    });
}

// Whether `stream` captures: what is used for the first time must not be loaded then.
API softgpu_capturing(void* handle) {
    const Enter enter("softgpu_capturing");
    const Stream* stream =
        enter.refused ? nullptr : stream_of(handle, *enter.context, "softgpu_capturing");
    return stream && stream->capture;
}

// --- streams

API cuStreamCreate(Stream** stream, unsigned flags) {
    constexpr unsigned NON_BLOCKING = 1;
    ENTER("cuStreamCreate");
    *stream = new Stream(context, !(flags & NON_BLOCKING));
    return Success;
}
API cuStreamCreateWithPriority(Stream** stream, unsigned flags, int) {
    return cuStreamCreate(stream, flags);
}

API cuStreamDestroy_v2(Stream* stream) {
    ENTER("cuStreamDestroy");
    USE(stream, STREAM, "cuStreamDestroy");
    drain(*stream);
    forget_capture(*stream);
    stream->destroy();
    return context.fault;
}

API cuStreamSynchronize(void* handle) {
    ENTER("cuStreamSynchronize");
    STREAM_OF(handle, "cuStreamSynchronize");
    if (stream.capture) {
        complain("synchronisation with a stream that captures");
        stream.capture->broken = true;
        return CaptureUnsupported;
    }
    drain(stream);
    return context.fault;
}

API cuStreamQuery(void* handle) {
    ENTER("cuStreamQuery");
    STREAM_OF(handle, "cuStreamQuery");
    poll(stream);
    return context.fault ? context.fault : stream.queue.empty() ? Success : NotReady;
}

// A stream that waits for an event of a capture joins the capture.
API cuStreamWaitEvent(void* handle, Event* event, unsigned) {
    ENTER("cuStreamWaitEvent");
    STREAM_OF(handle, "cuStreamWaitEvent");
    USE(event, EVENT, "cuStreamWaitEvent");
    const std::shared_ptr<Capture> capture = event->capture.lock();
    if (capture && !stream.capture) {
        stream.capture = capture;
        capture->joined.push_back(&stream);
    } else if (stream.capture && stream.capture != capture) {
        complain("cuStreamWaitEvent: a capture cannot wait for an event from outside of it");
        stream.capture->broken = true;
        return CaptureIsolation;
    } else if (!capture && event->mark && !event->mark->reached) {
        push(stream, {event->mark, nullptr, nullptr});
    }
    return Success;
}

// --- events

API cuEventCreate(Event** event, unsigned flags) {
    constexpr unsigned DISABLE_TIMING = 2;
    ENTER("cuEventCreate");
    *event = new Event(context, !(flags & DISABLE_TIMING));
    return Success;
}

API cuEventDestroy_v2(Event* event) {
    ENTER("cuEventDestroy");
    USE(event, EVENT, "cuEventDestroy");
    event->mark = nullptr;
    event->destroy();
    return Success;
}

API cuEventRecord(Event* event, void* handle) {
    ENTER("cuEventRecord");
    STREAM_OF(handle, "cuEventRecord");
    USE(event, EVENT, "cuEventRecord");
    event->capture = stream.capture;
    event->captured = stream.capture != nullptr;
    event->mark = event->captured ? nullptr : std::make_shared<Mark>(Mark{stream});
    if (event->mark) push(stream, {nullptr, nullptr, event->mark});
    return Success;
}

// With EXTERNAL the record becomes a node of the graph that is captured. NOTE: until the node has
// run again the event is as an earlier replay left it, and who waits for it waits for nothing.
API cuEventRecordWithFlags(Event* event, void* handle, unsigned flags) {
    constexpr unsigned EXTERNAL = 1;
    if (!(flags & EXTERNAL)) return cuEventRecord(event, handle);
    ENTER("cuEventRecordWithFlags");
    STREAM_OF(handle, "cuEventRecordWithFlags");
    USE(event, EVENT, "cuEventRecordWithFlags");
    if (!stream.capture) {
        complain("cuEventRecordWithFlags: an external event outside of a capture");
        return InvalidValue;
    }
    const auto mark = std::make_shared<Mark>(Mark{stream});
    event->capture.reset();
    event->captured = false;
    event->mark = mark;
    return submit(stream, [mark] {
        mark->reach();
        return Success;
    });
}

API cuEventSynchronize(Event* event) {
    ENTER("cuEventSynchronize");
    USE(event, EVENT, "cuEventSynchronize");
    if (event->captured) return CaptureUnsupported;
    if (event->mark) run_until(event->mark);
    return context.fault;
}

API cuEventQuery(Event* event) {
    ENTER("cuEventQuery");
    USE(event, EVENT, "cuEventQuery");
    if (event->captured) return CaptureUnsupported;
    if (!event->mark) return Success;
    if (!event->mark->reached) poll(event->mark->stream);
    return context.fault ? context.fault : event->mark->reached ? Success : NotReady;
}

API cuEventElapsedTime_v2(float* milliseconds, Event* start, Event* end) {
    ENTER("cuEventElapsedTime");
    for (const Event* event : {start, end}) {
        USE(event, EVENT, "cuEventElapsedTime");
        if (event->timed && event->mark) continue;
        complain("cuEventElapsedTime: an event that %s",
                 event->timed ? "was not recorded" : "keeps no time");
        return InvalidHandle;
    }
    if (!start->mark->reached || !end->mark->reached) return NotReady;
    *milliseconds = float(end->mark->milliseconds - start->mark->milliseconds);
    return Success;
}
API cuEventElapsedTime(float* milliseconds, Event* start, Event* end) {
    return cuEventElapsedTime_v2(milliseconds, start, end);
}
