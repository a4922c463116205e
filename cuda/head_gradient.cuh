// What the kernels share that go from gradients of scores ("slopes") to gradients of features: the
// products of slopes and rows, and the step from F̂ to F.
#pragma once
#include "head_scores.cuh"

inline namespace PICIE_SUFFIX(head) {

// Floats from row to row of slopes in shared memory: 16-byte reads fall on different banks.
constexpr int SLOPES = TILE + 4;

static_assert(SLOPES % 4 == 0 && MINE % 4 == 0, "a warp's slopes are read 16 bytes at a time");

// sum[i] += Σ over j < count of slopes[j][16·warp + i]·rows[j], 4 channels a lane. slopes (count,
// SLOPES), rows (count, ROW).
__device__ __forceinline__ void add_products(F4 (&sum)[MINE], const float* slopes,
                                             const float* rows, int count) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll 2
    for (int j = 0; j < count; ++j) {
        const F4 x = load(rows + j * ROW + 4 * lane);
#pragma unroll
        for (int i = 0; i < MINE; i += 4) {
            const F4 slope = load(slopes + j * SLOPES + warp * MINE + i);
#pragma unroll
            for (int l = 0; l < 4; ++l) add_scaled(sum[i + l], slope.v[l], x);
        }
    }
}

// Writes the gradient of F of a tile, given that of F̂ in `gradient` (a warp's 16 pixels): dF = (dF̂
// − F̂·(F̂·dF̂))/‖F‖, with F̂ in `tile` and 1/‖F‖ in `inverse`; without unit features it is dF̂
// itself, and neither is read. It goes to dp2 (n, h, w, D) where the image is not warped, else to
// dwarped (n, h, w, D).
__device__ __forceinline__ void store_gradient(act* dp2, act* dwarped, F4 (&gradient)[MINE],
                                               const float* tile, const float* inverse,
                                               const Laterals& in, int image, int first) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, pixels = in.h * in.w;
    act* df = window_of(in.crops, image, in.h, in.w).side == 0 ? dp2 : dwarped;
    df += static_cast<size_t>(image) * pixels * D + 4 * lane;
#pragma unroll
    for (int i = 0; i < MINE; ++i) {
        const int at = warp * MINE + i;
        if (in.unit) {
            const F4 f = load(tile + at * ROW + 4 * lane);
            const float scale = inverse[at], along = warp_sum(dot(gradient[i], f));
            // A clamped norm is a constant.
            add_scaled(gradient[i], scale >= 1.0f / EPS ? 0.0f : -along, f);
#pragma unroll
            for (int l = 0; l < 4; ++l) gradient[i].v[l] *= scale;
        }
        if (first + at < pixels) store4(df + (first + at) * D, gradient[i]);
    }
}

}  // namespace PICIE_SUFFIX(head)
