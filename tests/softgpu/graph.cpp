// Captures and graphs of the driver API: a stream that captures keeps closures, and a graph launch
// queues them.
#include "queue.h"

namespace softgpu {

namespace {

// What the driver takes for an executable graph.
constexpr size_t EXEC_BYTES = 1 << 20;

struct GraphHandle : Handle {
    GraphHandle(Kind kind, Context& context, std::shared_ptr<Graph> graph)
        : Handle(kind, context), graph(std::move(graph)) {}

    std::shared_ptr<Graph> graph;
};

}  // namespace

}  // namespace softgpu

using namespace softgpu;

API cuStreamBeginCapture_v2(void* handle, int mode) {
    constexpr int RELAXED = 2;
    ENTER("cuStreamBeginCapture");
    Stream* stream = stream_of(handle, context, "cuStreamBeginCapture");
    if (!stream) return InvalidHandle;
    if (stream->capture || stream == context.streams[0]) return CaptureUnsupported;
    stream->capture = std::make_shared<Capture>();
    stream->capture->origin = stream;
    stream->capture->strict = mode != RELAXED;
    strict_captures += stream->capture->strict;
    return Success;
}

API cuStreamEndCapture(void* handle, GraphHandle** graph) {
    ENTER("cuStreamEndCapture");
    Stream* stream = stream_of(handle, context, "cuStreamEndCapture");
    if (!stream) return InvalidHandle;
    *graph = nullptr;
    const std::shared_ptr<Capture> capture = forget_capture(*stream);
    if (!capture) return InvalidValue;
    if (capture->broken || fails_now("SOFTGPU_FAIL_CAPTURE")) return CaptureInvalidated;
    *graph = new GraphHandle(Handle::GRAPH, context, capture->graph);
    return Success;
}

API cuStreamIsCapturing(void* handle, int* status) {
    ENTER("cuStreamIsCapturing");
    Stream* stream = stream_of(handle, context, "cuStreamIsCapturing");
    if (!stream) return InvalidHandle;
    *status = !stream->capture ? 0 : stream->capture->broken ? 2 : 1;
    return Success;
}

API cuGraphInstantiateWithFlags(GraphHandle** executable, GraphHandle* graph, unsigned long long) {
    ENTER("cuGraphInstantiate");
    USE(graph, GRAPH, "cuGraphInstantiate");
    if (fails_now("SOFTGPU_FAIL_INSTANTIATE") || !charge(context, EXEC_BYTES)) return OutOfMemory;
    *executable = new GraphHandle(Handle::EXEC, context, graph->graph);
    return Success;
}

API cuGraphUpload(GraphHandle* executable, void*) {
    ENTER("cuGraphUpload");
    USE(executable, EXEC, "cuGraphUpload");
    return Success;
}

API cuGraphLaunch(GraphHandle* executable, void* handle) {
    ENTER("cuGraphLaunch");
    USE(executable, EXEC, "cuGraphLaunch");
    Stream* stream = stream_of(handle, context, "cuGraphLaunch");
    if (!stream) return InvalidHandle;
    const std::shared_ptr<Graph> graph = executable->graph;
    for (Work& work : graph->work) {
        if (const Result refused = submit(*stream, [graph, &work] { return work(); }))
            return refused;
    }
    return Success;
}

// A launch in flight keeps what it needs.
API cuGraphExecDestroy(GraphHandle* executable) {
    ENTER("cuGraphExecDestroy");
    USE(executable, EXEC, "cuGraphExecDestroy");
    executable->graph = nullptr;
    executable->destroy();
    discharge(context, EXEC_BYTES);
    return Success;
}

API cuGraphDestroy(GraphHandle* graph) {
    ENTER("cuGraphDestroy");
    USE(graph, GRAPH, "cuGraphDestroy");
    graph->graph = nullptr;
    graph->destroy();
    return Success;
}
