// The table of kernels, and one launch with its checks.
#pragma once

#include <stddef.h>

#include <atomic>
#include <vector>

#include "block.h"

namespace softgpu {

// CUresult, as far as it is used.
enum Result : int {
    Success = 0,
    InvalidValue = 1,
    OutOfMemory = 2,
    NotInitialized = 3,
    NoDevice = 100,
    InvalidDevice = 101,
    InvalidContext = 201,
    NoBinaryForGpu = 209,
    InvalidHandle = 400,
    NotFound = 500,
    NotReady = 600,
    IllegalAddress = 700,
    ContextIsDestroyed = 709,
    LaunchFailed = 719,
    CaptureUnsupported = 900,
    CaptureInvalidated = 901,
    CaptureIsolation = 905,
    CaptureImplicit = 906,
};

// A kernel of the table.
struct Kernel {
    Entry entry;
    size_t launches = 0;
    // Bytes of its shared arrays, as far as a block made them: 0 until it first ran.
    std::atomic<size_t> shared{0};
};

// Null where there is none of this name.
Kernel* find_kernel(const char* name);

// What a launch needs, parameters copied.
struct Call {
    Kernel* kernel;
    uint3 grid, block;
    size_t dynamic_bytes;
    // Shared memory that a block may have, arrays and dynamic.
    size_t shared_most = SHARED_PLAIN;
    std::vector<char> values;

    Call(Kernel* kernel, uint3 grid, uint3 block, size_t dynamic_bytes, void** parameters);
    Result check() const;
    Result run();
};

// One line on stderr.
void complain(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace softgpu
