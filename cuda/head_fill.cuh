// The features of a tile, from laterals into shared memory: a warp has 16 pixels, a lane 4 of
// a pixel's channels.
#pragma once
#include "head.cuh"

inline namespace PICIE_SUFFIX(head) {

// Calls each(row of the tile, y, x, whether the pixel exists) for the 16 pixels from
// `first + 16·warp` on, which are this warp's.
template <class Each>
__device__ __forceinline__ void for_my_pixels(int first, int h, int w, Each each) {
    const int row = threadIdx.x / 32 * MINE;
    int y = (first + row) / w, x = (first + row) - y * w;
#pragma unroll 2
    for (int i = 0; i < MINE; ++i) {
        each(row + i, y, x, y < h);
        if (++x == w) {
            x = 0;
            ++y;
        }
    }
}

// tile (TILE, ROW) = F̂ of the image's pixels from `first` on, 0 behind the last; inverse (TILE) =
// 1/‖F‖ unless null. A warp writes its own rows: a barrier must follow.
__device__ __forceinline__ void fill(float* tile, float* inverse, const Maps& maps, int first) {
    const int lane = threadIdx.x % 32;
    for_my_pixels(first, maps.h, maps.w, [&](int row, int y, int x, bool exists) {
        F4 f = {{0.0f, 0.0f, 0.0f, 0.0f}};
        if (exists) f = maps.feature(y, x);
        const float scale = inverse_norm(f, maps.unit);
#pragma unroll
        for (int i = 0; i < 4; ++i) f.v[i] *= scale;
        store(tile + row * ROW + 4 * lane, f);
        if (inverse != nullptr && lane == 0) inverse[row] = scale;
    });
}

}  // namespace PICIE_SUFFIX(head)
