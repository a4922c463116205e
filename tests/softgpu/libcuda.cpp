// The driver API on the software GPU: what the engine calls, with the checks a driver makes.
//
// * context.cpp: devices, contexts and what lives in them. queue.cpp: when work runs. stream.cpp:
// streams and events. graph.cpp. * memory.cpp: allocations. module.cpp: kernels and launches.
// launch.cpp: one launch. block.cpp: its blocks. * Here: errors, memory and copies.
//
// Environment:
//
// * SOFTGPU_ASYNC=early|late|SEED: when queued work runs (queue.cpp). CUDA_LAUNCH_BLOCKING=1: at
// once, and its fault is told at once. * SOFTGPU_ORDERS (2: each small launch runs in two orders
// and is compared; 1: once), SOFTGPU_COUNTS=file (launches by kernel,
//   written at exit).
// * SOFTGPU_DEVICES (1), SOFTGPU_DRIVER_VERSION (13000), SOFTGPU_MEMORY_MIB (4096),
// SOFTGPU_CHARGES=0 (kernels and graphs that are
//   loaded take none of it), SOFTGPU_SHARED (99: KiB of shared memory that a block may have at most, those of the smallest GPU that
//   is supported), SOFTGPU_BAD_IMAGE=1 (no module fits).
// * What fails, N being counted from 1: SOFTGPU_FAIL=kernel:N (a kernel's N-th launch),
// SOFTGPU_FAIL_ALLOC=N (an allocation),
//   SOFTGPU_FAIL_HOST_ALLOC=N (one of pinned memory), SOFTGPU_FAIL_CAPTURE=N (a capture ends without a graph),
//   SOFTGPU_FAIL_INSTANTIATE=N (a graph).
#include <string.h>

#include <string>

#include "memory.h"
#include "queue.h"

namespace softgpu {

namespace {

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
    {NoBinaryForGpu, "CUDA_ERROR_NO_BINARY_FOR_GPU",
     "no kernel image is available for execution on the device"},
    {InvalidHandle, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NotFound, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NotReady, "CUDA_ERROR_NOT_READY", "device not ready"},
    {IllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {ContextIsDestroyed, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {LaunchFailed, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {CaptureInvalidated, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {CaptureIsolation, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
     "dependency created on uncaptured work in another stream"},
    {CaptureImplicit, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
     "operation would make the legacy stream depend on a capturing blocking stream"},
};

bool on_device(const char* call, Address at, size_t bytes) {
    if (find(at, bytes).start) return true;
    complain("%s: %zu bytes at 0x%llx are not in one allocation", call, bytes,
             (unsigned long long)at);
    return false;
}

// Which ends of a copy lie on the host.
enum Direction { TO_DEVICE, FROM_DEVICE, WITHIN };

// What the host's memory means to a copy: pinned memory is read and written when the copy runs; of
// other memory a copy to the device takes what is there now, and one from the device is waited for.
int copy_device(void* handle, const char* call, void* to, const void* from, size_t bytes,
                Direction direction) {
    ENTER(call);
    Stream* stream = stream_of(handle, context, call);
    if (!stream) return InvalidHandle;
    if (bytes == 0) return Success;
    if (!to || !from) return InvalidValue;
    const auto in_place = [=] {
        return (direction == FROM_DEVICE || on_device(call, Address(to), bytes)) &&
               (direction == TO_DEVICE || on_device(call, Address(from), bytes));
    };
    if (!in_place()) return InvalidValue;
    const bool pageable =
        direction != WITHIN && !is_pinned(Address(direction == TO_DEVICE ? from : to), bytes);
    std::shared_ptr<char[]> staged;
    if (pageable && direction == TO_DEVICE && !stream->capture) {
        staged.reset(new char[bytes]);
        copy(staged.get(), from, bytes);
    }
    const Result refused = submit(*stream, [=] {
        // NOTE: looked at again, for a graph may outlive the memory it was captured with.
        if (!in_place()) return IllegalAddress;
        copy(to, staged ? staged.get() : from,
             bytes);  // the host reads sentinels that kernels must not touch
        return Success;
    });
    if (refused || !pageable || direction != FROM_DEVICE || stream->capture) return refused;
    drain(*stream);
    return context.fault;
}

// A copy in the default stream, which others need not wait for. NOTE: one from pageable memory may
// still be on its way afterwards.
int copy_now(const char* call, void* to, const void* from, size_t bytes, Direction direction) {
    const int refused = copy_device(nullptr, call, to, from, bytes, direction);
    const bool waits =
        direction != WITHIN && is_pinned(Address(direction == TO_DEVICE ? from : to), bytes);
    if (refused || !waits) return refused;
    ENTER(call);
    drain(*context.streams[0]);
    return context.fault;
}

template <class T>
int fill_device(void* handle, const char* call, Address to, T value, size_t count) {
    ENTER(call);
    Stream* stream = stream_of(handle, context, call);
    if (!stream) return InvalidHandle;
    if (count == 0) return Success;
    if (to % sizeof(T) || !on_device(call, to, count * sizeof(T))) return InvalidValue;
    return submit(*stream, [=] {
        if (!on_device(call, to, count * sizeof(T))) return IllegalAddress;
        T* p = reinterpret_cast<T*>(to);
        for (size_t i = 0; i < count; ++i) p[i] = value;
        return Success;
    });
}

// Frees what all that is queued may use until then.
int free_memory(const char* call, Address at) {
    ENTER(call);
    if (forbidden_in_capture(call)) return CaptureUnsupported;
    drain(context);
    if (context.fault) return context.fault;
    std::string damage;
    if (!release(at, damage)) {
        complain("%s: 0x%llx is no allocation", call, (unsigned long long)at);
        return InvalidValue;
    }
    if (damage.empty()) return Success;
    complain("%s: %s", call, damage.c_str());
    return LaunchFailed;
}

}  // namespace

}  // namespace softgpu

using namespace softgpu;

// --- errors

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

// --- memory

API cuMemGetInfo_v2(size_t* free_bytes, size_t* all) {
    ENTER("cuMemGetInfo");
    *all = total_memory();
    *free_bytes = *all - live_memory();
    return Success;
}

API cuMemAlloc_v2(Address* at, size_t bytes) {
    ENTER("cuMemAlloc");
    if (bytes == 0) return InvalidValue;
    if (forbidden_in_capture("cuMemAlloc")) return CaptureUnsupported;
    *at = fails_now("SOFTGPU_FAIL_ALLOC") ? 0 : allocate(bytes, false, &context);
    return *at ? Success : OutOfMemory;
}
API cuMemFree_v2(Address at) { return at ? free_memory("cuMemFree", at) : int(Success); }

API cuMemHostAlloc(void** at, size_t bytes, unsigned) {
    ENTER("cuMemHostAlloc");
    if (bytes == 0) return InvalidValue;
    if (forbidden_in_capture("cuMemHostAlloc")) return CaptureUnsupported;
    *at = fails_now("SOFTGPU_FAIL_HOST_ALLOC")
              ? nullptr
              : reinterpret_cast<void*>(allocate(bytes, true, &context));
    return *at ? Success : OutOfMemory;
}
API cuMemAllocHost_v2(void** at, size_t bytes) { return cuMemHostAlloc(at, bytes, 0); }
API cuMemFreeHost(void* at) { return free_memory("cuMemFreeHost", Address(at)); }

// --- copies

// Asynchronous copies to the device that this thread asked for.
static thread_local size_t copies_to_device = 0;
extern "C" __attribute__((visibility("default"))) size_t softgpu_copies_to_device() {
    return copies_to_device;
}

API cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
    ++copies_to_device;
    return copy_device(stream, "cuMemcpyHtoDAsync", to, from, bytes, TO_DEVICE);
}
API cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
    return copy_device(stream, "cuMemcpyDtoHAsync", to, from, bytes, FROM_DEVICE);
}
API cuMemcpyDtoDAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
    return copy_device(stream, "cuMemcpyDtoDAsync", to, from, bytes, WITHIN);
}
API cuMemcpyHtoD_v2(void* to, const void* from, size_t bytes) {
    return copy_now("cuMemcpyHtoD", to, from, bytes, TO_DEVICE);
}
API cuMemcpyDtoH_v2(void* to, const void* from, size_t bytes) {
    return copy_now("cuMemcpyDtoH", to, from, bytes, FROM_DEVICE);
}
API cuMemcpyDtoD_v2(void* to, const void* from, size_t bytes) {
    return copy_now("cuMemcpyDtoD", to, from, bytes, WITHIN);
}

API cuMemsetD8Async(Address to, unsigned char value, size_t count, void* stream) {
    return fill_device(stream, "cuMemsetD8", to, value, count);
}
API cuMemsetD32Async(Address to, unsigned value, size_t count, void* stream) {
    return fill_device(stream, "cuMemsetD32", to, value, count);
}
API cuMemsetD8_v2(Address to, unsigned char value, size_t count) {
    return cuMemsetD8Async(to, value, count, nullptr);
}
API cuMemsetD32_v2(Address to, unsigned value, size_t count) {
    return cuMemsetD32Async(to, value, count, nullptr);
}
