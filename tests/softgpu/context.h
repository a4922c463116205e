// Contexts, the handles that live in them, and what every call checks first.
#pragma once

#include <stddef.h>

#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "launch.h"

// An entry of the driver API, or of ours.
#define API extern "C" __attribute__((visibility("default"))) int

namespace softgpu {

struct Context;
struct Stream;

// What a handle of the driver points to. NOTE: never freed, so that one that was destroyed, or
// whose context was, is recognised.
struct Handle {
    enum Kind { STREAM, EVENT, MODULE, FUNCTION, GRAPH, EXEC, KINDS };

    Handle(Kind kind, Context& context);
    void destroy();

    const Kind kind;
    Context& context;
    bool lives = true;
};

// A primary context, from its first retain to its last release; the next retain makes another.
struct Context {
    explicit Context(int device) : device(device) {}

    const int device;
    int retained = 0;
    bool lives = true;
    // The fault of work that ran: every later call is told of it.
    Result fault = Success;
    // Kernels that were launched before, and the memory that they and others took without asking
    // for an address.
    std::set<const Kernel*> loaded;
    size_t charged = 0;
    // The first is the default stream.
    std::vector<Stream*> streams;
    int alive[Handle::KINDS] = {};
    std::recursive_mutex mutex;
    uint64_t random = 0;
    // What its work took on top of the host's time, in milliseconds.
    double simulated = 0;
};

// The door of the driver: `refused` unless the calling thread has a current context that lives and
// has no fault. Other threads with the same context wait until the call is over.
class Enter {
  public:
    explicit Enter(const char* call);

    Result refused = Success;
    Context* context;

  private:
    std::unique_lock<std::recursive_mutex> lock_;
};
#define ENTER(call)                          \
    const softgpu::Enter enter(call);        \
    if (enter.refused) return enter.refused; \
    [[maybe_unused]] softgpu::Context& context = *enter.context

// Whether `handle` is of this kind, of this context, and not destroyed. Complains if not.
bool good(const Handle* handle, Handle::Kind kind, const Context& context, const char* call);
#define USE(handle, kind, call) \
    if (!softgpu::good(handle, softgpu::Handle::kind, context, call)) return softgpu::InvalidHandle

// Takes memory for the rest of the context's life. False where there is not so much.
bool charge(Context& context, size_t bytes);
void discharge(Context& context, size_t bytes);

// What an environment variable says, a number.
long environment(const char* name, long otherwise);
// Whether this call, the N-th for `variable` in this process, is the one that `variable`=N lets
// fail.
bool fails_now(const char* variable);

}  // namespace softgpu
