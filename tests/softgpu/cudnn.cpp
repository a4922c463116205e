// cuDNN 9's graph API on the software GPU: what the engine calls, with the checks that cuDNN makes.
// This file has the library's own state, and runs plans; descriptors, graphs and engines have
// theirs.
//
// Environment:
//   SOFTCUDNN_VERSION (91000).
//   SOFTCUDNN_REFUSE, a list of what is not supported: all, fused, beta, narrowdw, nvrtc (what is compiled at run time);
//     and of what fails otherwise: sublibrary (any finalizing), heuristics (finalizing them), build, oom, compile (finalizing a plan; one
//     that is compiled), execute, execute=TAG (running a plan; one of this engine), capture=ENGINE (running one of it in a capture).
//   SOFTCUDNN_ACCEPT, a list of what else is supported: widebeta ({beta = 1, f32 gradients of weights} from narrower inputs).
//   SOFTCUDNN_BUILD_MS: how long it takes to build a plan from an engine's configuration.
//   SOFTCUDNN_COUNTS: a file to which counts of the calls, and of plans that were built, are appended at the end of the process.
// softcudnn_set says what is refused by the graphs that the calling thread makes, and which version
// it sees.
#include "cudnn.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <chrono>
#include <mutex>
#include <set>

extern "C" {
int softgpu_submit(void* stream, void (*function)(void*), void* arg, void (*drop)(void*));
int softgpu_elapse(double microseconds);
int softgpu_charge(size_t bytes);
int softgpu_discharge(size_t bytes);
int softgpu_capturing(void* stream);
int cuStreamSynchronize(void* stream);
}

namespace softcudnn {

namespace {

// What a plan's code takes from its first run on.
constexpr size_t CODE = 8 << 20;
constexpr size_t WORKSPACE_ALIGNMENT = 256;

std::mutex mutex;
std::set<const void*>& living() {
    static auto* set = new std::set<const void*>;
    return *set;
}

thread_local std::string last_error, thread_refuses;
thread_local size_t thread_version = 0;

std::string environment(const char* name) {
    const char* text = getenv(name);
    return text ? text : "";
}

Counts& counts() {
    // Appended, as several processes of a test may write it.
    static auto* counts = [] {
        atexit([] {
            const std::string path = environment("SOFTCUDNN_COUNTS");
            FILE* file = path.empty() ? nullptr : fopen(path.c_str(), "a");
            if (!file) return;
            const Counts& c = softcudnn::counts();
            fprintf(file, "heuristics %zu\nplans %zu\nplans_json %zu\nexecutes %zu\n", c.heuristics,
                    c.plans, c.plans_json, c.executes);
            fclose(file);
        });
        return new Counts{};
    }();
    return *counts;
}

struct Job {
    Problem problem;
    Pointers at;
    void* workspace;
    size_t workspace_bytes;
    std::shared_ptr<Program> program;
    Engine engine;
    bool damaged;
};

// What a kernel with a wrong bit may do.
void spoil(const Problem& p, const Pointers& at) {
    switch (p.direction) {
        case Direction::Forward:
            memset(at.y, 0xFF, p.n * p.p * p.q * p.k * size_of(p.y_type));
            break;
        case Direction::BackwardData:
            memset(at.x, 0xFF, p.n * p.h * p.w * p.c * size_of(p.x_type));
            break;
        case Direction::BackwardWeight:
            memset(at.w, 0xFF, p.k * p.r * p.s * p.c * size_of(p.w_type));
            break;
    }
}

void run(void* argument) {
    Job& job = *static_cast<Job*>(argument);
    const auto start = std::chrono::steady_clock::now();
    job.problem.cut = cut(*job.program, job.engine);
    // Before and after: what overlaps the workspace is spoilt, be it read or written.
    if (job.workspace_bytes) memset(job.workspace, 0xFF, job.workspace_bytes);
    job.damaged ? spoil(job.problem, job.at) : convolve(job.problem, job.at);
    if (job.workspace_bytes) memset(job.workspace, 0xFF, job.workspace_bytes);
    // The device's clock shows what the engine costs, however long the host took, if that counts at
    // all.
    static const bool host_counts = !getenv("SOFTGPU_CLOCK");
    const std::chrono::duration<double, std::micro> host = std::chrono::steady_clock::now() - start;
    softgpu_elapse(microseconds(*job.program, job.engine) - (host_counts ? host.count() : 0));
}

// A plan's code is loaded as it first runs, which a capture does not survive; nor does it an engine
// that waits for the device.
Status load(const Handle& handle, Descriptor& plan) {
    const bool capturing = softgpu_capturing(handle.stream);
    if (capturing &&
        (!plan.loaded || refuses(*plan.program, "capture=" + std::to_string(plan.engine.index)))) {
        cuStreamSynchronize(handle.stream);
        const char* why =
            plan.loaded ? "cannot be captured" : "is loaded, as it never ran before the capture";
        return say(ExecutionFailedCudaDriver, "engine %s %s: cudaErrorStreamCaptureUnsupported",
                   plan.engine.tag().c_str(), why);
    }
    if (!plan.loaded && softgpu_charge(CODE)) {
        return say(ExecutionFailedCudaDriver, "cuModuleLoadData: CUDA_ERROR_OUT_OF_MEMORY");
    }
    plan.loaded = true;
    return Success;
}

}  // namespace

bool lives(const void* p) {
    const std::lock_guard<std::mutex> lock(mutex);
    return living().count(p);
}
void is_born(const void* p) {
    const std::lock_guard<std::mutex> lock(mutex);
    living().insert(p);
}
void dies(const void* p) {
    const std::lock_guard<std::mutex> lock(mutex);
    living().erase(p);
}

void unload(const Descriptor& plan) {
    if (plan.loaded) softgpu_discharge(CODE);
}

Status say(Status status, const char* format, ...) {
    char text[1000];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    last_error = text;
    if (status / 1000 == BadParam / 1000) fprintf(stderr, "software cuDNN: %s\n", text);
    return status;
}

bool lists(const std::string& list, const std::string& what) {
    return ("," + list + ",").find("," + what + ",") != std::string::npos;
}
std::string refused_here() { return thread_refuses + "," + environment("SOFTCUDNN_REFUSE"); }
bool accepts(const char* what) { return lists(environment("SOFTCUDNN_ACCEPT"), what); }

void count(size_t Counts::* what) {
    const std::lock_guard<std::mutex> lock(mutex);
    ++(counts().*what);
}

}  // namespace softcudnn

using namespace softcudnn;

API void softcudnn_set(const char* refuse, size_t version) {
    thread_refuses = refuse;
    thread_version = version;
}

API size_t cudnnGetVersion() {
    const char* text = getenv("SOFTCUDNN_VERSION");
    return thread_version ? thread_version : text ? size_t(atol(text)) : 91000;
}

API void cudnnGetLastErrorString(char* to, size_t size) {
    snprintf(to, size, "%s", last_error.c_str());
}

API int cudnnCreate(Handle** handle) {
    *handle = new Handle;
    is_born(*handle);
    return Success;
}

API int cudnnDestroy(Handle* handle) {
    if (!lives(handle)) return say(BadParam, "cudnnDestroy of what is no handle");
    dies(handle);
    delete handle;
    return Success;
}

API int cudnnSetStream(Handle* handle, void* stream) {
    if (!lives(handle)) return say(BadParam, "cudnnSetStream of what is no handle");
    handle->stream = stream;
    return Success;
}

// Any living handle will do: cuDNN ties a plan to a device, and not to the handle it was made with.
API int cudnnBackendExecute(Handle* handle, Descriptor* plan, Descriptor* pack) {
    if (!lives(handle) || !lives(plan) || !lives(pack))
        return say(BadParam, "executing what does not live");
    if (!plan->finalized || !pack->finalized || plan->kind != PLAN || pack->kind != PACK) {
        return say(BadParam, "executing needs a plan and a pack");
    }
    softcudnn::count(&Counts::executes);
    const Program& program = *plan->program;
    const auto ids = pack->all<int64_t>(1000);
    const auto pointers = pack->all<void*>(1001);
    Status status = Success;
    const auto find = [&](const Operand& operand) -> void* {
        if (!operand.id) return nullptr;
        for (size_t i = 0; i < ids.size(); ++i) {
            if (ids[i] != operand.id) continue;
            if (!pointers[i]) status = say(BadParam, "tensor %lld is at 0", (long long)operand.id);
            if (reinterpret_cast<uintptr_t>(pointers[i]) % size_t(operand.alignment)) {
                status = say(MisalignedPointer, "tensor %lld is misaligned", (long long)operand.id);
            }
            return pointers[i];
        }
        status = say(BadParam, "tensor %lld is not in the pack", (long long)operand.id);
        return nullptr;
    };
    void* const workspace = pack->one<void*>(1003);
    Job job{program.problem, {},           workspace,    workspace_of(program, plan->engine),
            plan->program,   plan->engine, plan->damaged};
    job.problem.rounds_inputs = rounds_inputs(plan->engine);
    job.at = {find(program.x), find(program.w), find(program.y), find(program.bias),
              find(program.residual)};
    if (job.workspace_bytes && !job.workspace) status = say(BadParam, "the plan wants a workspace");
    if (reinterpret_cast<uintptr_t>(workspace) % WORKSPACE_ALIGNMENT)
        status = say(MisalignedPointer, "the workspace is misaligned");
    if (status) return status;
    if (refuses(program, "execute") || refuses(program, "execute=" + plan->engine.tag())) {
        return say(ExecutionFailedCudaDriver, "cuLaunchKernelEx(...) != CUDA_SUCCESS");
    }
    if (const Status failed = load(*handle, *plan)) return failed;
    const int queued = softgpu_submit(handle->stream, run, new Job(job),
                                      [](void* p) { delete static_cast<Job*>(p); });
    return queued ? say(ExecutionFailed, "the stream refused: CUDA error %d", queued) : Success;
}
