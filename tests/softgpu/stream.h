// Streams: work that runs when it is submitted, or is kept by a capture.
#pragma once

#include <functional>

#include "launch.h"

// An entry of the driver API, or of ours.
#define API extern "C" __attribute__((visibility("default"))) int

namespace softgpu {

using Work = std::function<Result()>;

// `stream` is a CUstream; errors are told by the call that ran the work and by the next synchronisation, which is where a GPU would
// tell them.
int submit(void* stream, Work work);

// What this thread's work went wrong with since it last asked, on any stream.
Result take_pending();

// Whether this thread captures, so that `call` may not happen: the graph would not hold it. Complains if so.
bool forbidden_in_capture(const char* call);

// Whether this call, the N-th for `variable` in this process, is the one that `variable`=N lets fail.
bool fails_now(const char* variable);

// Whether cuCtxSetCurrent was called on this thread.
extern thread_local bool context_is_current;

}  // namespace softgpu
