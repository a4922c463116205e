// What the kernels share that go from gradients of scores ("slopes") to gradients of features: the
// products of slopes and rows, and the step from F̂ to F.
//
// A warp has 16 pixels, and 64 sums of a lane are the gradient of two of them: lane 4·g + t has
// pixels g and g + 8, and of each 32 channels the 8 from 8·t on. sum[4·i + j][2·p + e] is that of
// pixel g + 8·p and channel 32·i + 8·t + 2·j + e.
#pragma once
#include "head_scores.cuh"

inline namespace PICIE_SUFFIX(head) {

// Whether rows count in two parts of bf16, as slopes do, or in their first alone. That rounds what
// is stored in bf16, and so rounded anyway, to 4e-4 of the largest in the mean instead of 3e-4, and
// takes half of the wavefronts and a third of the mma.
#if defined(PICIE_ACT_BF16)
constexpr bool FINE = false;
#else
constexpr bool FINE = true;
#endif
// Blocks that a multiprocessor is to hold of a kernel with gradients. NOTE: not an int, which
// build.rs would want to know.
constexpr auto BLOCKS = FINE ? 2 : 3;

// sum += slopes·rows, for slopes that lie as scores do, and the rows of a chunk, of which the first
// `count` exist. A score's layout is that of a left factor: 16 classes are two tiles of 8.
__device__ __forceinline__ void add_products(float (&sum)[OCTETS][4], const float (&slopes)[4][4],
                                             const unsigned* chunk, int count) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int c = 0; c < CHUNK; c += 16) {
        if (c >= count) break;
        unsigned a[4], rest[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float* const x = slopes[c / 8 + i / 2] + i % 2 * 2;
            const Split parts = split(x[0], x[1]);
            a[i] = parts.hi;
            rest[i] = parts.lo;
        }
        // A load brings 16 channels of 16 classes, which are the right factor as they lie.
        const unsigned* const rows = chunk + ((c + lane % 16) * WIDE + lane / 16 * 8) / 2;
#pragma unroll
        for (int j = 0; j < OCTETS; j += 2) {
            unsigned hi[4], lo[4];
            load_matrix<true>(hi, rows + 4 * j);
            if (FINE) load_matrix<true>(lo, rows + 4 * j + PART_WORDS);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const unsigned high[2] = {hi[2 * i], hi[2 * i + 1]};
                if (FINE) {
                    const unsigned low[2] = {lo[2 * i], lo[2 * i + 1]};
                    mma(sum[j + i], a, low);
                }
                mma(sum[j + i], rest, high);
                mma(sum[j + i], a, high);
            }
        }
    }
}

// Writes the gradient of F of a tile: dF = (dF̂ − F̂·(F̂·dF̂))/‖F‖, with dF̂/‖F‖ in `gradient`, F̂
// in `tile` and 1/‖F‖ in `inverse`; without unit features it is dF̂ itself, and neither is read. It
// goes to dp2 (n, h, w, D) where the image is not warped, else to dwarped (n, h, w, D), 8 channels
// at a time.
__device__ __forceinline__ void store_gradient(act* dp2, act* dwarped,
                                               const float (&gradient)[OCTETS][4],
                                               const float* tile, const float* inverse,
                                               const Laterals& in, int image, const Spot& spot) {
    const int pixels = in.h * in.w, column = threadIdx.x % 4 * 8;
    act* df = window_of(in.crops, image, in.h, in.w).side == 0 ? dp2 : dwarped;
    df += static_cast<size_t>(image) * pixels * D + column;
#pragma unroll
    for (int p = 0; p < 2; ++p) {
        // Eight channels from 32·i on in the lane's column.
        F8 x[OCTETS / 4];
#pragma unroll
        for (int i = 0; i < D / 4; ++i) x[i / 8].v[i % 8] = gradient[i / 2][2 * p + i % 2];
        if (in.unit) {
            F8 f[OCTETS / 4];
            float along = 0.0f;
#pragma unroll
            for (int i = 0; i < D / 4; i += 4) {
                const F4 part = load(tile + my_pixel(p) * ROW + column + i / 8 * 32 + i % 8);
#pragma unroll
                for (int l = 0; l < 4; ++l) {
                    f[i / 8].v[i % 8 + l] = part.v[l];
                    along += part.v[l] * x[i / 8].v[i % 8 + l];
                }
            }
            // A clamped norm is a constant.
            along = sum_of_quad(along);
            if (inverse[my_pixel(p)] >= 1.0f / EPS) along = 0.0f;
#pragma unroll
            for (int i = 0; i < D / 4; ++i) x[i / 8].v[i % 8] -= along * f[i / 8].v[i % 8];
        }
        if (spot.has(my_pixel(p))) {
            act* const to = df + spot.pixel(my_pixel(p)) * D;
#pragma unroll
            for (int i = 0; i < OCTETS / 4; ++i) store8(to + 32 * i, x[i]);
        }
    }
}

}  // namespace PICIE_SUFFIX(head)
