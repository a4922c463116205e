// Runs the blocks of a launch on the calling host thread, one after the other.
#pragma once

#include <stddef.h>

#include <string>

#include "shim.h"

namespace softgpu {

struct Launch {
    const Entry* entry;
    uint3 grid, block;
    size_t dynamic_bytes;
    void** parameters;
};

// Blocks, warps and lanes in ascending or descending order. Returns what went wrong, or nothing.
std::string run_grid(const Launch& launch, bool descending);

// The most shared memory a block may have (compute capability 9.0), and what needs no cuFuncSetAttribute.
constexpr size_t SHARED_MOST = 227 << 10, SHARED_PLAIN = 48 << 10;

}  // namespace softgpu
