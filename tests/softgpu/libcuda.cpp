// The driver API on the software GPU: what the engine calls, with the checks a driver makes.
//
// Work runs on the calling host thread when it is submitted, so streams and events are in order by themselves; a stream that
// captures keeps closures instead, and a graph launch plays them. Modules are empty: kernels are found by name in one table.
//
// Environment: SOFTGPU_ORDERS (2: each small launch runs in two orders and is compared; 1: once), SOFTGPU_MEMORY_MIB (4096),
// SOFTGPU_DEVICES (1), SOFTGPU_DRIVER_VERSION (13000), SOFTGPU_BAD_IMAGE=1 (no module fits), SOFTGPU_FAIL=kernel:N (its N-th launch
// fails), SOFTGPU_FAIL_ALLOC=N (the N-th allocation fails), SOFTGPU_COUNTS=file (launches by kernel, written at exit).
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "launch.h"
#include "memory.h"

#define API extern "C" __attribute__((visibility("default"))) int

namespace softgpu {

namespace {

using Work = std::function<Result()>;

struct Graph {
    std::vector<Work> work;
};

struct Capture {
    std::shared_ptr<Graph> graph = std::make_shared<Graph>();
    struct Stream* origin = nullptr;
    std::vector<struct Stream*> joined;
    bool strict = false;
    bool broken = false;
};

struct Stream {
    Capture* capture = nullptr;
    Result pending = Success;
};

struct Event {
    Capture* capture = nullptr;
    bool recorded = false;
    std::chrono::steady_clock::time_point time;
};

// The default stream. NOTE: one per host thread, so that tests that run side by side do not see each other's errors.
thread_local Stream default_stream;
thread_local Result pending = Success;
// Captures this thread began that forbid what could wait for the device.
thread_local int strict_captures = 0;
thread_local bool context_is_current = false;

long environment(const char* name, long otherwise) {
    const char* text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}

// Streams 0, 1 and 2 are the default ones.
Stream& stream_of(void* handle) {
    return reinterpret_cast<uintptr_t>(handle) <= 2 ? default_stream : *static_cast<Stream*>(handle);
}

// An error is told by the call that ran the work and by the next synchronisation, which is where a GPU would tell it.
Result note(Stream& stream, Result result) {
    if (result != Success) stream.pending = pending = result;
    return result;
}

int submit(void* handle, Work work) {
    Stream& stream = stream_of(handle);
    if (stream.capture) {
        stream.capture->graph->work.push_back(std::move(work));
        return Success;
    }
    if (&stream == &default_stream && strict_captures) return CaptureImplicit;
    return note(stream, work());
}

// What may not happen while this thread captures: the graph would not hold it.
bool forbidden_in_capture(const char* call) {
    if (!strict_captures) return false;
    complain("%s during a stream capture", call);
    return true;
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

bool on_device(const char* call, Address at, size_t bytes) {
    if (find(at, bytes).start) return true;
    complain("%s: %zu bytes at 0x%llx are not in one allocation", call, bytes, (unsigned long long)at);
    return false;
}

int copy_device(void* stream, const char* call, void* to, const void* from, size_t bytes, bool to_device, bool from_device) {
    if (bytes == 0) return Success;
    if (!to || !from) return InvalidValue;
    if (to_device && !on_device(call, Address(to), bytes)) return InvalidValue;
    if (from_device && !on_device(call, Address(from), bytes)) return InvalidValue;
    return submit(stream, [=] {
        // NOTE: looked at again, for a graph may outlive the memory it was captured with.
        if (to_device && !on_device(call, Address(to), bytes)) return IllegalAddress;
        if (from_device && !on_device(call, Address(from), bytes)) return IllegalAddress;
        memmove(to, from, bytes);
        return Success;
    });
}

template <class T>
int fill_device(void* stream, const char* call, Address to, T value, size_t count) {
    if (count == 0) return Success;
    if (to % sizeof(T) || !on_device(call, to, count * sizeof(T))) return InvalidValue;
    return submit(stream, [=] {
        if (!on_device(call, to, count * sizeof(T))) return IllegalAddress;
        T* p = reinterpret_cast<T*>(to);
        for (size_t i = 0; i < count; ++i) p[i] = value;
        return Success;
    });
}

Result play(const Graph& graph) {
    for (const Work& work : graph.work) {
        const Result result = work();
        if (result != Success) return result;
    }
    return Success;
}

struct Name {
    int code;
    const char* name;
    const char* text;
};
constexpr Name NAMES[] = {
    {Success, "CUDA_SUCCESS", "no error"},
    {InvalidValue, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NotInitialized, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {NoDevice, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {InvalidDevice, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {InvalidContext, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {NoBinaryForGpu, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {InvalidHandle, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NotFound, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NotReady, "CUDA_ERROR_NOT_READY", "device not ready"},
    {IllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {LaunchFailed, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {CaptureInvalidated, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {CaptureImplicit, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "operation would make the legacy stream depend on a capturing blocking stream"},
};

int fail_alloc() {
    static std::atomic<long> count{0};
    static const long wanted = environment("SOFTGPU_FAIL_ALLOC", 0);
    return ++count == wanted;
}

std::atomic<bool> initialized{false};
char the_context, the_module;

}  // namespace

}  // namespace softgpu

using namespace softgpu;

// --- errors, devices, contexts

API cuGetErrorName(int code, const char** name) {
    *name = nullptr;
    for (const Name& n : NAMES) {
        if (n.code == code) *name = n.name;
    }
    return *name ? Success : InvalidValue;
}

API cuGetErrorString(int code, const char** text) {
    *text = nullptr;
    for (const Name& n : NAMES) {
        if (n.code == code) *text = n.text;
    }
    return *text ? Success : InvalidValue;
}

API cuInit(unsigned) {
    if (environment("SOFTGPU_DEVICES", 1) == 0) return NoDevice;
    initialized = true;
    return Success;
}

API cuDriverGetVersion(int* version) {
    *version = int(environment("SOFTGPU_DRIVER_VERSION", 13000));
    return Success;
}

API cuDeviceGetCount(int* count) {
    if (!initialized) return NotInitialized;
    *count = int(environment("SOFTGPU_DEVICES", 1));
    return Success;
}

API cuDeviceGet(int* device, int ordinal) {
    if (!initialized) return NotInitialized;
    if (ordinal < 0 || ordinal >= environment("SOFTGPU_DEVICES", 1)) return InvalidDevice;
    *device = ordinal;
    return Success;
}

API cuDeviceGetName(char* name, int size, int) {
    snprintf(name, size_t(size), "software GPU");
    return Success;
}

API cuDeviceGetUuid_v2(char* uuid, int device) {
    memcpy(uuid, "softwaregpu-0000", 16);
    uuid[15] = char('0' + device);
    return Success;
}
API cuDeviceGetUuid(char* uuid, int device) { return cuDeviceGetUuid_v2(uuid, device); }

API cuDeviceTotalMem_v2(size_t* bytes, int) {
    *bytes = total_memory();
    return Success;
}

// An H200's limits, with so few multiprocessors that small tests run kernels' loops over the grid.
API cuDeviceGetAttribute(int* value, int attribute, int) {
    switch (attribute) {
        case 1: case 2: case 3: *value = 1024; break;  // threads of a block
        case 4: *value = 64; break;
        case 5: *value = 0x7fffffff; break;  // blocks of a grid
        case 6: case 7: *value = 65535; break;
        case 8: *value = int(SHARED_PLAIN); break;
        case 9: *value = 65536; break;  // constant memory
        case 10: *value = 32; break;    // warp
        case 12: case 82: *value = 65536; break;  // registers of a block, of a multiprocessor
        case 13: *value = 1980000; break;         // kHz
        case 16: *value = 4; break;               // multiprocessors
        case 31: *value = 1; break;               // concurrent kernels
        case 36: *value = 3201000; break;         // memory clock, kHz
        case 37: *value = 6144; break;            // memory bus, bits
        case 38: *value = 50 << 20; break;        // L2
        case 39: *value = 2048; break;            // threads of a multiprocessor
        case 40: *value = 3; break;               // copy engines
        case 41: *value = 1; break;               // one address space
        case 75: *value = 9; break;
        case 76: *value = 0; break;
        case 81: *value = 228 << 10; break;
        case 97: *value = int(SHARED_MOST); break;
        case 106: *value = 32; break;  // blocks of a multiprocessor
        case 111: *value = 1 << 10; break;  // shared memory that the system keeps
        default: *value = 0;
    }
    return Success;
}

API cuDevicePrimaryCtxRetain(void** context, int) {
    *context = &the_context;
    return Success;
}
API cuDevicePrimaryCtxRelease_v2(int) { return Success; }

API cuCtxSetCurrent(void* context) {
    context_is_current = context != nullptr;
    return Success;
}
API cuCtxGetCurrent(void** context) {
    *context = context_is_current ? &the_context : nullptr;
    return Success;
}
API cuCtxSynchronize() {
    if (!context_is_current) return InvalidContext;
    if (forbidden_in_capture("cuCtxSynchronize")) return CaptureUnsupported;
    default_stream.pending = Success;
    return std::exchange(pending, Success);
}

// --- memory

API cuMemGetInfo_v2(size_t* free_bytes, size_t* all) {
    *all = total_memory();
    *free_bytes = *all - live_memory();
    return Success;
}

API cuMemAlloc_v2(Address* at, size_t bytes) {
    if (!context_is_current) return InvalidContext;
    if (bytes == 0) return InvalidValue;
    if (forbidden_in_capture("cuMemAlloc")) return CaptureUnsupported;
    *at = fail_alloc() ? 0 : allocate(bytes, false);
    return *at ? Success : OutOfMemory;
}

static int release_or_complain(const char* call, Address at) {
    std::string damage;
    if (!release(at, damage)) {
        complain("%s: 0x%llx is no allocation", call, (unsigned long long)at);
        return InvalidValue;
    }
    if (damage.empty()) return Success;
    complain("%s: %s", call, damage.c_str());
    return LaunchFailed;
}
API cuMemFree_v2(Address at) {
    if (at == 0) return Success;
    if (forbidden_in_capture("cuMemFree")) return CaptureUnsupported;
    return release_or_complain("cuMemFree", at);
}

API cuMemHostAlloc(void** at, size_t bytes, unsigned) {
    if (bytes == 0) return InvalidValue;
    *at = reinterpret_cast<void*>(allocate(bytes, true));
    return *at ? Success : OutOfMemory;
}
API cuMemAllocHost_v2(void** at, size_t bytes) { return cuMemHostAlloc(at, bytes, 0); }
API cuMemFreeHost(void* at) { return release_or_complain("cuMemFreeHost", Address(at)); }

API cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
    return copy_device(stream, "cuMemcpyHtoD", to, from, bytes, true, false);
}
API cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
    return copy_device(stream, "cuMemcpyDtoH", to, from, bytes, false, true);
}
API cuMemcpyDtoDAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
    return copy_device(stream, "cuMemcpyDtoD", to, from, bytes, true, true);
}
API cuMemcpyHtoD_v2(void* to, const void* from, size_t bytes) { return cuMemcpyHtoDAsync_v2(to, from, bytes, nullptr); }
API cuMemcpyDtoH_v2(void* to, const void* from, size_t bytes) { return cuMemcpyDtoHAsync_v2(to, from, bytes, nullptr); }
API cuMemcpyDtoD_v2(void* to, const void* from, size_t bytes) { return cuMemcpyDtoDAsync_v2(to, from, bytes, nullptr); }

API cuMemsetD8Async(Address to, unsigned char value, size_t count, void* stream) {
    return fill_device(stream, "cuMemsetD8", to, value, count);
}
API cuMemsetD32Async(Address to, unsigned value, size_t count, void* stream) {
    return fill_device(stream, "cuMemsetD32", to, value, count);
}
API cuMemsetD8_v2(Address to, unsigned char value, size_t count) { return cuMemsetD8Async(to, value, count, nullptr); }
API cuMemsetD32_v2(Address to, unsigned value, size_t count) { return cuMemsetD32Async(to, value, count, nullptr); }

// --- modules and kernels

API cuModuleLoadData(void** module, const void* image) {
    if (!context_is_current) return InvalidContext;
    if (!image) return InvalidValue;
    if (environment("SOFTGPU_BAD_IMAGE", 0)) return NoBinaryForGpu;
    *module = &the_module;
    return Success;
}
API cuModuleUnload(void*) { return Success; }

API cuModuleGetFunction(Kernel** kernel, void* module, const char* name) {
    if (module != &the_module) return InvalidHandle;
    *kernel = find_kernel(name);
    return *kernel ? Success : NotFound;
}

API cuFuncSetAttribute(Kernel* kernel, int attribute, int value) {
    constexpr int MAX_DYNAMIC_SHARED = 8;
    if (attribute != MAX_DYNAMIC_SHARED) return Success;
    if (value < 0 || size_t(value) > SHARED_MOST) return InvalidValue;
    kernel->allowed_dynamic = size_t(value);
    return Success;
}
API cuFuncGetAttribute(int* value, int attribute, Kernel* kernel) {
    switch (attribute) {
        case 0: *value = int(kernel->entry.threads); break;
        case 4: *value = 32; break;  // registers
        case 8: *value = int(kernel->allowed_dynamic); break;
        default: *value = 0;
    }
    return Success;
}

API cuLaunchKernel(Kernel* kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned dynamic_bytes,
                   void* stream, void** parameters, void** extra) {
    if (!context_is_current) return InvalidContext;
    if (extra || (!parameters && kernel->entry.count)) return InvalidValue;
    Call call(kernel, {gx, gy, gz}, {bx, by, bz}, dynamic_bytes, parameters);
    if (const Result refused = call.check()) return refused;
    return submit(stream, [call = std::move(call)]() mutable { return call.run(); });
}

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
    event->recorded = !event->capture;
    event->time = std::chrono::steady_clock::now();
    return Success;
}
API cuEventSynchronize(Event* event) { return event->capture ? CaptureUnsupported : Success; }
API cuEventQuery(Event* event) { return event->capture ? CaptureUnsupported : Success; }
API cuEventElapsedTime_v2(float* milliseconds, Event* start, Event* end) {
    if (!start->recorded || !end->recorded) return InvalidHandle;
    *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
    return Success;
}
API cuEventElapsedTime(float* milliseconds, Event* start, Event* end) { return cuEventElapsedTime_v2(milliseconds, start, end); }

// A stream that waits for an event of a capture joins the capture.
API cuStreamWaitEvent(void* handle, Event* event, unsigned) {
    Stream& stream = stream_of(handle);
    if (event->capture && !stream.capture) {
        stream.capture = event->capture;
        event->capture->joined.push_back(&stream);
    }
    return Success;
}

// --- graphs

API cuStreamBeginCapture_v2(void* handle, int mode) {
    constexpr int RELAXED = 2;
    Stream& stream = stream_of(handle);
    if (stream.capture || &stream == &default_stream) return CaptureUnsupported;
    stream.capture = new Capture;
    stream.capture->origin = &stream;
    stream.capture->strict = mode != RELAXED;
    strict_captures += stream.capture->strict;
    return Success;
}

API cuStreamEndCapture(void* handle, std::shared_ptr<Graph>** graph) {
    Stream& stream = stream_of(handle);
    *graph = nullptr;
    if (!stream.capture || stream.capture->origin != &stream) return InvalidValue;
    const std::unique_ptr<Capture> capture(std::exchange(stream.capture, nullptr));
    for (Stream* joined : capture->joined) joined->capture = nullptr;
    strict_captures -= capture->strict;
    if (capture->broken) return CaptureInvalidated;
    *graph = new std::shared_ptr<Graph>(capture->graph);
    return Success;
}

API cuStreamIsCapturing(void* stream, int* status) {
    const Capture* capture = stream_of(stream).capture;
    *status = !capture ? 0 : capture->broken ? 2 : 1;
    return Success;
}

API cuGraphInstantiateWithFlags(std::shared_ptr<Graph>** executable, std::shared_ptr<Graph>* graph, unsigned long long) {
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

API cuProfilerStart() { return Success; }
API cuProfilerStop() { return Success; }
