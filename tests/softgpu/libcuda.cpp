// The driver API on the software GPU: what the engine calls, with the checks a driver makes.
//
// Here: errors, devices, memory, modules and launches; stream.cpp has the rest. Modules are empty: kernels are found by name in one
// table.
//
// Environment: SOFTGPU_ORDERS (2: each small launch runs in two orders and is compared; 1: once), SOFTGPU_MEMORY_MIB (4096),
// SOFTGPU_DEVICES (1), SOFTGPU_DRIVER_VERSION (13000), SOFTGPU_BAD_IMAGE=1 (no module fits), SOFTGPU_FAIL=kernel:N (its N-th launch
// fails), SOFTGPU_FAIL_ALLOC=N (the N-th allocation fails), SOFTGPU_FAIL_HOST_ALLOC=N (of pinned memory), SOFTGPU_FAIL_CAPTURE=N (the
// N-th capture ends without a graph), SOFTGPU_FAIL_INSTANTIATE=N, SOFTGPU_COUNTS=file (launches by kernel, written at exit).
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <map>
#include <mutex>
#include <string>

#include "memory.h"
#include "stream.h"

namespace softgpu {

namespace {

long environment(const char* name, long otherwise) {
    const char* text = getenv(name);
    return text && *text ? atol(text) : otherwise;
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
        copy(to, from, bytes);  // the host reads sentinels that kernels must not touch
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
    {IllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {LaunchFailed, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {CaptureInvalidated, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {CaptureImplicit, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "operation would make the legacy stream depend on a capturing blocking stream"},
};

std::atomic<bool> initialized{false};
char the_context, the_module;

}  // namespace

bool fails_now(const char* variable) {
    static std::mutex mutex;
    static auto* calls = new std::map<std::string, long>;
    std::lock_guard<std::mutex> lock(mutex);
    return ++(*calls)[variable] == environment(variable, 0);
}

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
    return take_pending();
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
    *at = fails_now("SOFTGPU_FAIL_ALLOC") ? 0 : allocate(bytes, false);
    return *at ? Success : OutOfMemory;
}

// Takes `bytes` from the free memory for good, as what is loaded behind the engine's back does. 0, or 2: out of memory.
API softgpu_charge(size_t bytes) { return charge(bytes) ? Success : OutOfMemory; }

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
    *at = fails_now("SOFTGPU_FAIL_HOST_ALLOC") ? nullptr : reinterpret_cast<void*>(allocate(bytes, true));
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

API cuProfilerStart() { return Success; }
API cuProfilerStop() { return Success; }
