// Features of a warp's 16 pixels as products on tensor cores, where activations are bf16.
//
//   F = p2 + Σ U·M,  or Σ U·M alone of an image that is warped
//
// Merge and warp are linear, and rows and columns of a map are interpolated apart: a pixel's weight
// of a coarse pixel is one of its row times one of its column (head_taps). M are coarse pixels as
// they lie in memory, U (16, coarse pixels) their weights in two bf16 parts: what that leaves out
// is within 2⁻¹⁶ of a product. The second part is left out where rows and columns weigh multiples
// of 1/16, as all of a direct merge do where sides are multiples of 8. A weight of 0 is multiplied
// like any other: a pixel that is not finite spoils all 16 pixels that are multiplied with it.
//
// A warp has two rows of eight pixels. A step multiplies 16 pixels of a coarse map: two rows of
// eight columns, or four of four where that is enough. A lane loads 16 bytes of each of two
// neighbours, 4·2 times, which it interleaves: they are the right factor. Sums lie as in
// head_gradient.cuh but for the channels: lane 4·g + t has pixels g (p = 0) and g + 8, and
// sum[8·h + i][2·p + e] is channel 64·h + 32·e + 8·t + i.
//
// Instructions of a warp and 16 pixels: 330 before and behind, 100 for p2, 82 a level, 99 a step
// with one part and 124 with two, of 16 and 32 mma. Of large even maps a direct merge takes 4
// steps, a cascade 5, of an image that is warped by a window of 0.7 of its sides 5.6 and 6.4: 67,
// 75, 84 and 91 instructions a pixel, 4, 6, 11 and 13 mma, and 12 to 15 wavefronts of loads.
#pragma once
#include "head_scores.cuh"
#include "head_taps.cuh"

inline namespace PICIE_SUFFIX(head) {

// A lane's channels of a pixel are 8 from here on, and as many 64 later: those of an mma's right
// factor, and those of its sums, of which there are as many again 32 later.
__device__ __forceinline__ int right_channel() {
    const int g = threadIdx.x % WARP / 4;
    return g % 2 * 32 + g / 2 * 8;
}
__device__ __forceinline__ int sum_channel() { return threadIdx.x % 4 * 8; }

// The lower halves of x and y, or their upper ones.
__device__ __forceinline__ unsigned halves(bool upper, unsigned x, unsigned y) {
    return __byte_perm(x, y, upper ? 0x7632 : 0x5410);
}

// p, of device memory, as a value of its own. NOTE: else the compiler computes all of it anew for
// each load.
template <class T>
__device__ __forceinline__ const T* held(const T* p) {
#ifdef __CUDA_ARCH__
    asm volatile("" : "+l"(p));
    __builtin_assume(__isGlobal(p));
#endif
    return p;
}

// sum += the products of a step: weights `down` · `across`, in one part where they are EXACT, and
// 16 pixels.
template <bool EXACT>
__device__ __forceinline__ void multiply(float (&sum)[OCTETS][4], const uint4 (&x)[2][2][2],
                                         const float (&down)[4], const float2& across) {
    unsigned a[4], rest[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const Split parts = split(down[i] * across.x, down[i] * across.y);
        a[i] = parts.hi;
        rest[i] = parts.lo;
    }
#pragma unroll
    for (int i = 0; i < OCTETS; ++i) {
        const auto word = [&](const uint4& four) {
            return i % 8 < 2 ? four.x : i % 8 < 4 ? four.y : i % 8 < 6 ? four.z : four.w;
        };
        unsigned b[2];
#pragma unroll
        for (int k = 0; k < 2; ++k)
            b[k] = halves(i % 2, word(x[k][i / 8][0]), word(x[k][i / 8][1]));
        if (!EXACT) mma(sum[i], rest, b);
        mma(sum[i], a, b);
    }
}

// sum += the products of level l, whose map is `map`, with the taps of a strip and a pair, of which
// this lane has a row of weights, and those of a half.
__device__ __forceinline__ void add_level(float (&sum)[OCTETS][4], const act* map, int l,
                                          bool narrow, const StripTaps* strip,
                                          const PairTaps* pair) {
    const int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    const TapColumns columns = strip->level[l];
    const TapRows rows = pair->level[l];
    const bool exact = columns.exact && rows.exact;
    // This lane's rows of a step, of the first 8 and the last 8 of its pixels.
    const int above = narrow && t > 1 ? rows.pitch : 0,
              apart = narrow ? 2 * rows.pitch : rows.pitch;
    const float* const right = strip->weights[l + (l > 0)][g];
    const float* const left = pair->weights[l][0][t / 2];
#pragma unroll 1
    for (int column = narrow ? t % 2 * 2 : t * 2; column < columns.count; column += STRIDE) {
        const float2 across = *reinterpret_cast<const float2*>(
            right + column / STRIDE * (STRIDE * STRIDE) + column % STRIDE);
        const int first = columns.offset + column * D;
        const act* const one = held(map + smaller(first, columns.last));
        const act* const other = held(map + smaller(first + D, columns.last));
        int row = rows.offset + above;
        const float* weights = left;
#pragma unroll 1
        for (int steps = rows.steps; steps > 0; --steps) {
            const int at[2] = {smaller(row, rows.last), smaller(row + apart, rows.last)};
            uint4 x[2][2][2];
#pragma unroll
            for (int i = 0; i < 8; ++i)
                x[i / 4][i / 2 % 2][i % 2] = *reinterpret_cast<const uint4*>(
                    (i % 2 ? other : one) + at[i / 4] + i / 2 % 2 * 64);
            const float4 down = *reinterpret_cast<const float4*>(weights);
            const float u[4] = {down.x, down.y, down.z, down.w};
            if (exact) {
                multiply<true>(sum, x, u, across);
            } else {
                multiply<false>(sum, x, u, across);
            }
            row += 2 * apart;
            weights += 8;
        }
    }
}

// sum = p2 of the warp's pixels from (x, y) on; of those outside of the map the last one's.
__device__ __forceinline__ void take_finest(float (&sum)[OCTETS][4], const Maps& maps, int x,
                                            int y) {
    const int w = maps.in->w, h = maps.in->h, g = threadIdx.x % WARP / 4;
    const act* const map = maps.in->p[0] + static_cast<size_t>(maps.image) * (h * w * D) +
                           (x + g < w ? x + g : w - 1) * D + sum_channel();
    Pack<8> pixels[2][2][2];
#pragma unroll
    for (int p = 0; p < 2; ++p) {
        const act* const row = map + (y + p < h ? y + p : h - 1) * w * D;
#pragma unroll
        for (int i = 0; i < 4; ++i) pixels[p][i / 2][i % 2] = load_pack(row + 32 * i);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const int p = i / 4, half = i / 2 % 2, e = i % 2;
        const F8 eight = unpack(pixels[p][half][e]);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum[8 * half + j][2 * p + e] = eight.v[j];
    }
}

// tile (TILE, ROW) = F̂ of a tile's pixels, 0 of those that do not exist; inverse (TILE) = 1/‖F‖
// unless null. A warp writes its own rows.
__device__ __forceinline__ void merge(float* tile, float* inverse, const Maps& maps,
                                      const Spot& spot) {
    const Laterals& in = *maps.in;
    const int lane = threadIdx.x % WARP, y = spot.y + 2 * (threadIdx.x / WARP);
    const Taps taps = taps_of(const_cast<float*>(in.taps), in, maps.image);
    const StripTaps* const strip = held(taps.strips + spot.x / STRIDE);
    const PairTaps* const pair = held(taps.pairs + smaller(y, in.h - 1) / 2);
    float sum[OCTETS][4];
    const auto add = [&](int l) {
        // NOTE: maps by turns, since an index would copy the parameters into local memory.
        const act* map = l == 0 ? in.p[0] : l == 1 ? in.p[1] : l == 2 ? in.p[2] : in.p[3];
        map += static_cast<size_t>(maps.image) * pair->area[l] + right_channel();
        add_level(sum, map, l, l >= in.wide, strip, pair);
    };
    if (maps.window.side == 0) {
        take_finest(sum, maps, spot.x, y);
    } else {
        clear(sum);
    }
#pragma unroll 1
    for (int l = maps.window.side == 0; l < in.levels; ++l) add(l);
#pragma unroll
    for (int p = 0; p < 2; ++p) {
        float square = 0.0f;
#pragma unroll
        for (int i = 0; i < OCTETS; ++i) {
#pragma unroll
            for (int e = 0; e < 2; ++e) square += sum[i][2 * p + e] * sum[i][2 * p + e];
        }
        square = sum_of_quad(square);
        float scale = square < EPS * EPS ? 1.0f / EPS : inverse_root(square);
        if (!in.unit) scale = 1.0f;
        const int row = my_pixel(p);
        const bool has = spot.has(row);
        if (inverse != nullptr && lane % 4 == 0)
            inverse[row] = has || !in.unit ? scale : 1.0f / EPS;
        scale = has ? scale : 0.0f;
        float* const to = tile + row * ROW + sum_channel();
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const int from = i / 4 * 8 + i % 2 * 4, e = i / 2 % 2;
            store(to + i / 4 * 64 + e * 32 + i % 2 * 4,
                  {{scale * sum[from][2 * p + e], scale * sum[from + 1][2 * p + e],
                    scale * sum[from + 2][2 * p + e], scale * sum[from + 3][2 * p + e]}});
        }
    }
}

}  // namespace PICIE_SUFFIX(head)
