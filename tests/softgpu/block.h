// Runs the blocks of a launch on the calling host thread, one after the other.
#pragma once

#include <stddef.h>

#include <atomic>
#include <string>

#include "shim.h"

namespace softgpu {

struct Launch {
    const Entry* entry;
    uint3 grid, block;
    size_t dynamic_bytes;
    void** parameters;
    // Bytes of shared memory that a block may have; where the most that its arrays took is noted.
    size_t shared_most;
    std::atomic<size_t>* shared;
};

// Blocks, warps and lanes in ascending or descending order. Returns what went wrong, or nothing.
std::string run_grid(const Launch& launch, bool descending);

// The shared memory that a block may have without cuFuncSetAttribute, and with it on any GPU
// (compute capability 9.0).
constexpr size_t SHARED_PLAIN = 48 << 10, SHARED_MOST = 227 << 10;
// With it on this one.
size_t shared_most();

}  // namespace softgpu
