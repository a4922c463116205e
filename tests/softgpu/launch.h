// The table of kernels, and one launch with its checks.
#pragma once

#include <stddef.h>

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
    IllegalAddress = 700,
    LaunchFailed = 719,
    CaptureUnsupported = 900,
    CaptureInvalidated = 901,
    CaptureImplicit = 906,
};

// A kernel of the table; cuModuleGetFunction hands out its address.
struct Kernel {
    Entry entry;
    size_t launches = 0;
    size_t allowed_dynamic = SHARED_PLAIN;
};

// Null where there is none of this name.
Kernel* find_kernel(const char* name);

// What a launch needs, parameters copied.
struct Call {
    Kernel* kernel;
    uint3 grid, block;
    size_t dynamic_bytes;
    std::vector<char> values;

    Call(Kernel* kernel, uint3 grid, uint3 block, size_t dynamic_bytes, void** parameters);
    Result check() const;
    Result run();
};

// One line on stderr.
void complain(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace softgpu
