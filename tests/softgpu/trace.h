// Who hears of each launch and of each time that a warp has stopped: trace.cpp, in the build that
// has it.
#pragma once

#include "block.h"

namespace softgpu {

struct Tracer {
    // A launch begins, with its shared memory in these bytes.
    virtual void begin(const Launch& launch, const void* shared, size_t bytes) = 0;
    // All lanes of the running warp have stopped.
    virtual void stopped() = 0;
    virtual void end() = 0;
};
// Null where nothing is traced.
extern Tracer* tracer;

}  // namespace softgpu
