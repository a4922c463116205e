// What the kernels of views share: colours and their normalisation, and how blocks stand.
#pragma once
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / WARP;
// Partial sums of grey of an image: blocks of view_grey.
constexpr int PARTS = 32;

static_assert(PARTS == WARP, "a warp adds up the partial sums of an image");

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

// What the channels give to a grey.
constexpr float GREY_RED = 0.299f, GREY_GREEN = 0.587f, GREY_BLUE = 0.114f;

__device__ __forceinline__ float grey(const Colour& c) {
    return GREY_RED * c.r + GREY_GREEN * c.g + GREY_BLUE * c.b;
}
