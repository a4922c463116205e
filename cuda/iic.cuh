// What the kernels of IIC's loss share: classes of pairs of pixels, and tiles of classes.
#pragma once
#include "common.cuh"

// Classes of pairs (p, p − δ) along an axis: the first that lies in the map, the last, and all
// others.
constexpr int FIRST = 0, INNER = 1, LAST = 2, CLASSES = 3;

// The pairs (p + i, q + i), i < count, along an axis.
struct Pairs {
    int p, q, count;
};

// The pairs of one class at a lag, along an axis of `len` pixels.
__device__ __forceinline__ Pairs pairs_of(int len, int lag, int which) {
    const int p = lag > 0 ? lag : 0, q = lag < 0 ? -lag : 0, all = len - p - q;
    if (which == FIRST) return {p, q, all > 0 ? 1 : 0};
    if (which == LAST) return {p + all - 1, q + all - 1, all > 1 ? 1 : 0};
    return {p + 1, q + 1, all > 2 ? all - 2 : 0};
}

// Classes of a tile, and of a thread.
constexpr int TILE = 48, SIDE = 6;

static_assert(TILE == 8 * SIDE && SIDE % 2 == 0,
              "eight threads along a tile read pairs of classes");
static_assert(TILE % 16 == 0, "16 threads load a pixel's classes");

// x (SIDE) = numbers at an even place of shared memory.
__device__ __forceinline__ void six(float* x, const float* from) {
#pragma unroll
    for (int i = 0; i < SIDE; i += 2) {
        const float2 two = *reinterpret_cast<const float2*>(from + i);
        x[i] = two.x;
        x[i + 1] = two.y;
    }
}
