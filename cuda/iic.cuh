// What the kernels of IIC's loss share: classes of pairs of pixels, and tiles of classes.
#pragma once
#include "mma.cuh"

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

// Words from pixel to pixel, or row to row, of a tile in bf16: the rows of a matrix that is loaded
// fall on different banks.
constexpr int PITCH = TILE / 2 + 4;

static_assert(PITCH % 4 == 0 && PITCH % 8 == 4, "rows are loaded 16 bytes at a time");

// Classes b and b + 1 of a pixel of row `row` of all images, which has w columns of k classes: 0
// where there are none, and in the columns at the border.
__device__ __forceinline__ float2 two_of(const float* maps, int row, int column, int w, int k,
                                         int b) {
    const bool inner = column >= 1 && column <= w - 2;
    const float* const x = maps + (row * w + column) * k + b;
    return make_float2(inner && b < k ? x[0] : 0.0f, inner && b + 1 < k ? x[1] : 0.0f);
}

// to[0] and to[apart] = the parts of two numbers.
__device__ __forceinline__ void keep_parts(unsigned* to, int apart, float2 x) {
    const Split parts = split(x.x, x.y);
    to[0] = parts.hi;
    to[apart] = parts.lo;
}

// sum (16, 16), as two tiles of eight columns, += left·right, of both of which there are two parts.
__device__ __forceinline__ void add_parts(float (*sum)[4], const unsigned (&hi)[4],
                                          const unsigned (&lo)[4], const unsigned (&high)[4],
                                          const unsigned (&low)[4]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const unsigned right[2] = {high[2 * i], high[2 * i + 1]},
                       rest[2] = {low[2 * i], low[2 * i + 1]};
        mma(sum[i], lo, right);
        mma(sum[i], hi, rest);
        mma(sum[i], hi, right);
    }
}
