// What the kernels of views share: colours and their normalisation, and how blocks stand.
#pragma once
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / WARP;
// Width of a block's outputs, a lane for each column.
constexpr int TILE = 32;

static_assert(TILE == WARP && TILE % WARPS == 0,
              "lanes have columns, warps share the rows of a tile");

struct Colour {
    float r, g, b;
};

// ImageNet's mean and standard deviation of a colour: `ops::view::MEAN` and `STD`.
__device__ __forceinline__ float mean_of(int c) {
    return c == 0 ? 0.485f : c == 1 ? 0.456f : 0.406f;
}
__device__ __forceinline__ float deviation_of(int c) {
    return c == 0 ? 0.229f : c == 1 ? 0.224f : 0.225f;
}

__device__ __forceinline__ float grey(const Colour& c) {
    return 0.299f * c.r + 0.587f * c.g + 0.114f * c.b;
}
