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

// x of a colour (0..1), whose fourth channel is zero, and the colour in 8 bits: red in the lowest.
// NOTE: where activations have 16 bits x is that of the 8 bits, so that a view which was kept in 8
// bits is the same bits as one that is rendered again.
struct Pixel {
    F4 x;
    unsigned rgb;
};

__device__ __forceinline__ Pixel pixel_of(const float (&colour)[3]) {
    // Sums with 2²³ are rounded to integers, which are then the low bits.
    constexpr float ABOVE = 8388608.0f;
    Pixel pixel{};
    unsigned bits[3];
#pragma unroll
    for (int v = 0; v < 3; ++v) {
        const float biased = fmaf(colour[v], 255.0f, ABOVE);
        bits[v] = __float_as_uint(biased);
        const float value = sizeof(act) == 2 ? biased - ABOVE : colour[v];
        const float scale = (sizeof(act) == 2 ? 1 / 255.0f : 1.0f) / deviation_of(v);
        pixel.x.v[v] = value * scale - mean_of(v) / deviation_of(v);
    }
    pixel.rgb = __byte_perm(__byte_perm(bits[0], bits[1], 0x1140), bits[2], 0x2410);
    return pixel;
}

__device__ __forceinline__ void store_pixel(act* to, const Pixel& pixel, int channels) {
    store4(to, pixel.x);
    if (channels == 8) store4(to + 4, F4{});
}
