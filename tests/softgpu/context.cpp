// Devices and contexts of the driver API.
//
// NOTE: each host thread has a primary context of its own, where a process has one: so tests that
// run side by side in one process do not see each other's faults and leaks. A thread that wants the
// context of another makes it current by its handle.
#include "context.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <string>
#include <unordered_set>

#include "memory.h"
#include "queue.h"

namespace softgpu {

namespace {

std::mutex mutex;
std::unordered_set<const void*>& known() {
    static auto* known = new std::unordered_set<const void*>;
    return *known;
}

std::atomic<bool> initialized{false};
thread_local std::map<int, Context*> primaries;
thread_local Context* current = nullptr;
thread_local int leaked = 0;

constexpr const char* NAMES[] = {"stream",   "event", "module",
                                 "function", "graph", "executable graph"};

bool is_known(const void* handle) {
    std::lock_guard<std::mutex> lock(mutex);
    return known().count(handle);
}

// The last release: what is left goes with the context, and is complained of unless a fault kept it
// from being destroyed.
void end(Context& context) {
    drain(context);
    std::string left;
    const auto count = [&](int n, const char* name) {
        if (n == 0) return;
        left += (left.empty() ? "" : ", ") + std::to_string(n) + " " + name + (n > 1 ? "s" : "");
        leaked += n;
    };
    const auto [device, pinned] = release_all(&context);
    if (context.fault == Success) {
        for (int kind = 0; kind < Handle::KINDS; ++kind) count(context.alive[kind], NAMES[kind]);
        count(device, "allocation");
        count(pinned, "allocation of pinned memory");
    }
    if (!left.empty()) complain("a context ends with %s", left.c_str());
    for (Stream* stream : context.streams) forget_capture(*stream);
    discharge(context, context.charged);
    context.lives = false;
}

}  // namespace

Handle::Handle(Kind kind, Context& context) : kind(kind), context(context) {
    ++context.alive[kind];
    std::lock_guard<std::mutex> lock(mutex);
    known().insert(this);
}

void Handle::destroy() {
    lives = false;
    --context.alive[kind];
}

Enter::Enter(const char* call) : context(current) {
    if (!initialized) {
        refused = NotInitialized;
    } else if (!context) {
        complain("%s: no context is current on this thread", call);
        refused = InvalidContext;
    } else {
        lock_ = std::unique_lock<std::recursive_mutex>(context->mutex);
        if (!context->lives) complain("%s: the context was released", call);
        refused = context->lives ? context->fault : ContextIsDestroyed;
    }
}

bool good(const Handle* handle, Handle::Kind kind, const Context& context, const char* call) {
    const char* why = !is_known(handle) || handle->kind != kind ? "no"
                      : !handle->lives                          ? "a destroyed"
                      : &handle->context != &context            ? "another context's"
                                                                : nullptr;
    if (why) complain("%s: %s %s", call, why, NAMES[kind]);
    return !why;
}

// SOFTGPU_CHARGES=0: what is loaded takes no memory.
bool charge(Context& context, size_t bytes) {
    static const bool free = !environment("SOFTGPU_CHARGES", 1);
    if (free) return true;
    if (!take(bytes)) return false;
    context.charged += bytes;
    return true;
}

void discharge(Context& context, size_t bytes) {
    bytes = std::min(bytes, context.charged);
    give_back(bytes);
    context.charged -= bytes;
}

long environment(const char* name, long otherwise) {
    const char* text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}

bool fails_now(const char* variable) {
    static auto* calls = new std::map<std::string, long>;
    std::lock_guard<std::mutex> lock(mutex);
    return ++(*calls)[variable] == environment(variable, 0);
}

}  // namespace softgpu

using namespace softgpu;

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

// An H200's limits but for shared memory, with so few multiprocessors that small tests run kernels'
// loops over the grid.
API cuDeviceGetAttribute(int* value, int attribute, int) {
    switch (attribute) {
        case 1:
        case 2:
        case 3: *value = 1024; break;  // threads of a block
        case 4: *value = 64; break;
        case 5: *value = 0x7fffffff; break;  // blocks of a grid
        case 6:
        case 7: *value = 65535; break;
        case 8: *value = int(SHARED_PLAIN); break;
        case 9: *value = 65536; break;  // constant memory
        case 10: *value = 32; break;    // warp
        case 12:
        case 82: *value = 65536; break;     // registers of a block, of a multiprocessor
        case 13: *value = 1980000; break;   // kHz
        case 16: *value = 4; break;         // multiprocessors
        case 31: *value = 1; break;         // concurrent kernels
        case 36: *value = 3201000; break;   // memory clock, kHz
        case 37: *value = 6144; break;      // memory bus, bits
        case 38: *value = 50 << 20; break;  // L2
        case 39: *value = 2048; break;      // threads of a multiprocessor
        case 40: *value = 3; break;         // copy engines
        case 41: *value = 1; break;         // one address space
        case 75: *value = 9; break;
        case 76: *value = 0; break;
        case 81: *value = int(shared_most()) + (1 << 10); break;
        case 97: *value = int(shared_most()); break;
        case 106: *value = 32; break;       // blocks of a multiprocessor
        case 111: *value = 1 << 10; break;  // shared memory that the system keeps
        default: *value = 0;
    }
    return Success;
}

API cuDevicePrimaryCtxRetain(Context** context, int device) {
    if (!initialized) return NotInitialized;
    if (device < 0 || device >= environment("SOFTGPU_DEVICES", 1)) return InvalidDevice;
    Context*& primary = primaries[device];
    if (!primary) {
        primary = new Context(device);
        std::lock_guard<std::mutex> lock(mutex);
        known().insert(primary);
    }
    if (primary->streams.empty()) new Stream(*primary, true);
    ++primary->retained;
    *context = primary;
    return Success;
}

API cuDevicePrimaryCtxRelease_v2(int device) {
    if (!initialized) return NotInitialized;
    const auto primary = primaries.find(device);
    if (primary == primaries.end() || !primary->second) {
        complain("cuDevicePrimaryCtxRelease: released more often than retained");
        return InvalidContext;
    }
    Context& context = *primary->second;
    if (--context.retained > 0) return Success;
    primary->second = nullptr;
    std::lock_guard<std::recursive_mutex> lock(context.mutex);
    end(context);
    return Success;
}

API cuCtxSetCurrent(Context* context) {
    if (!initialized) return NotInitialized;
    if (context && !is_known(context)) return InvalidContext;
    current = context;
    return Success;
}

API cuCtxGetCurrent(Context** context) {
    if (!initialized) return NotInitialized;
    *context = current;
    return Success;
}

API cuCtxSynchronize() {
    ENTER("cuCtxSynchronize");
    if (forbidden_in_capture("cuCtxSynchronize")) return CaptureUnsupported;
    drain(context);
    return context.fault;
}

// Takes `bytes` from the free memory for the life of the context, as what is loaded behind the
// engine's back does. 0, or 2: out of memory.
API softgpu_charge(size_t bytes) {
    ENTER("softgpu_charge");
    return charge(context, bytes) ? Success : OutOfMemory;
}

API softgpu_discharge(size_t bytes) {
    ENTER("softgpu_discharge");
    discharge(context, bytes);
    return Success;
}

// How many things were still there when contexts of this thread ended.
API softgpu_leaks() { return leaked; }
