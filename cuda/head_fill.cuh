// The features of a tile, from laterals into shared memory.
#pragma once
#include "head_merge.cuh"
#include "head_walk.cuh"

inline namespace PICIE_SUFFIX(head) {

// 1/max(‖f‖, ε) of the pixel that half a warp has. All lanes of the warp must call it. NOTE: not
// fmaxf, which would turn a NaN norm into ε.
__device__ __forceinline__ float inverse_norm(const F8& f) {
    float square = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) square += f.v[i] * f.v[i];
#pragma unroll
    for (int step = LANES / 2; step > 0; step >>= 1)
        square += __shfl_xor_sync(ALL_LANES, square, step);
    return square < EPS * EPS ? 1.0f / EPS : inverse_root(square);
}

// Walks along an image's F, and calls each as `walk` does.
template <class Sources, class Each>
__device__ __forceinline__ void walk_maps(const Maps& maps, const Spot& spot, Each each) {
    const int h = maps.in->h, w = maps.in->w;
    const Window& window = maps.window;
    const Sources sources = {*maps.in, maps.image};
    if (window.side == 0) {
        Plain<Sources> path = {{sources}, {}, 0.0f};
        walk(path, spot, false, each);
    } else {
        const Frame frame = {window.top, window.left, window.side, window.side, h, w};
        Warped<Sources> path = {{{sources}}, frame, 0.0f, 0.0f};
        walk(path, spot, window.flip, each);
    }
}

// Calls each(row of the tile, F̂, 1/‖F‖) for the pixels of a tile that this half warp has, as
// `walk` does.
template <class Each>
__device__ __forceinline__ void for_features(const Maps& maps, const Spot& spot, Each each) {
    const auto scaled = [&](int row, F8& f) {
        const float scale = maps.in->unit ? inverse_norm(f) : 1.0f;
#pragma unroll
        for (int i = 0; i < 8; ++i) f.v[i] *= scale;
        each(row, f, scale);
    };
    if (maps.in->o3 != nullptr) {
        walk_maps<Cascaded>(maps, spot, scaled);
    } else {
        walk_maps<Direct>(maps, spot, scaled);
    }
}

// A lane's channels to the row p.
__device__ __forceinline__ void store_walked(float* p, const F8& f) {
    p += 4 * walking_lane();
    store(p, {{f.v[0], f.v[1], f.v[2], f.v[3]}});
    store(p + APART, {{f.v[4], f.v[5], f.v[6], f.v[7]}});
}
#if !defined(PICIE_ACT_F32)
__device__ __forceinline__ void store_walked(act* p, const F8& f) {
    p += 4 * walking_lane();
    store4(p, {{f.v[0], f.v[1], f.v[2], f.v[3]}});
    store4(p + APART, {{f.v[4], f.v[5], f.v[6], f.v[7]}});
}
#endif

// tile (TILE, ROW) = F̂ of a tile's pixels, 0 of those that do not exist; inverse (TILE) = 1/‖F‖
// unless null. A warp writes its own rows: a barrier must follow.
__device__ __forceinline__ void fill(float* tile, float* inverse, const Maps& maps,
                                     const Spot& spot) {
#if defined(PICIE_ACT_BF16)
    merge(tile, inverse, maps, spot);
#else
    for_features(maps, spot, [&](int row, F8& f, float scale) {
        if (!spot.has(row)) return;
        store_walked(tile + row * ROW, f);
        if (inverse != nullptr && walking_lane() == 0) inverse[row] = scale;
    });
    const int line = threadIdx.x / LANES * WALK;
    for (int row = line; row < line + WALK; ++row) {
        if (spot.has(row)) continue;
        store_walked(tile + row * ROW, {{0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f}});
        if (inverse != nullptr && walking_lane() == 0)
            inverse[row] = maps.in->unit ? 1.0f / EPS : 1.0f;
    }
#endif
}

}  // namespace PICIE_SUFFIX(head)
