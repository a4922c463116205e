// The scores of a tile's features for 32 classes at a time, on tensor cores.
//
//   chunk       32 rows of a classifier in shared memory, as two bf16 matrices: w = hi + lo
//   load_chunk  fills it, and the bias; barriers of the block stand before and behind
//   scores      s[j][2·i + e] = the score of pixel my_pixel(i) and class my_class(j, e) of the chunk
//
// A warp scores its 16 pixels: lane = 4·g + t has two of them (i < 2), g and g + 8 of the warp's,
// and 8 of the 32 classes (j < 4, e < 2), 8·j + 2·t + e; the four lanes of a pixel are neighbours.
// That is the layout of an mma's sums, and of the left factor of a next one.
//
// Features and weights are split into bf16 parts, and a product is hi·hi + hi·lo + lo·hi: what is
// left out is within 3·2⁻¹⁶ of |f|·|w|. Of a unit vector and normal weights that is 5e-6 on
// average, where the scores are of size 1. NaN, and an infinity, which leaves NaN when it is split,
// gives NaN scores of its pixel, or of its class.
//
// A warp and chunk: 8 × (4 LDS.64, 4 LDSM.x4, 12 HMMA, 24 to split) instructions, 192 wavefronts
// of shared memory and 96 HMMA.
#pragma once
#include "head.cuh"
#include "mma.cuh"

inline namespace PICIE_SUFFIX(head) {

// bf16 from row to row of a chunk: the eight rows of a matrix that is loaded fall on different
// banks.
constexpr int WIDE = D + 8;
// Words of one part of a chunk, and of both: hi lies before lo.
constexpr int PART_WORDS = CHUNK * WIDE / 2, CHUNK_WORDS = 2 * PART_WORDS;

static_assert(WIDE % 8 == 0 && WIDE / 2 % 32 == 4, "rows are loaded 16 bytes at a time");

// Two floats as bf16, and what that leaves of them as bf16: x = hi + lo within 2⁻¹⁶·|x|.
struct Split {
    unsigned hi, lo;
};

// The first and the second bf16 of a pair.
__device__ __forceinline__ float first_of(unsigned pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float second_of(unsigned pair) {
    return __uint_as_float(pair & 0xffff0000u);
}

__device__ __forceinline__ Split split(float x, float y) {
    const unsigned hi = pack_bf16(x, y);
    return {hi, pack_bf16(x - first_of(hi), y - second_of(hi))};
}

// chunk (CHUNK, ROW) = rows of w (k, D) from `first` on, zeros behind the last; as f32.
__device__ __forceinline__ void load_rows(float* chunk, const float* w, int k, int first) {
    for (int i = threadIdx.x; i < CHUNK * D / 4; i += blockDim.x) {
        const int row = i / (D / 4), column = i % (D / 4) * 4;
        F4 x = {{0.0f, 0.0f, 0.0f, 0.0f}};
        if (first + row < k) x = load(w + static_cast<size_t>(first + row) * D + column);
        store(chunk + row * ROW + column, x);
    }
}

// chunk (2, CHUNK, WIDE) = rows of w (k, D) from `first` on in two parts, zeros behind the last;
// bias (CHUNK) = b, behind the last row one that never wins.
__device__ __forceinline__ void load_chunk(unsigned* chunk, float* bias, const float* w,
                                           const float* b, int k, int first) {
    // A warp has every fourth row, a lane four of its channels.
    const int lane = threadIdx.x % WARP, mine = threadIdx.x / WARP;
    const float* const from = w + static_cast<size_t>(first + mine) * D + 4 * lane;
    uint2* const to = reinterpret_cast<uint2*>(chunk) + mine * (WIDE / 4) + lane;
#pragma unroll
    for (int i = 0; i < CHUNK; i += WARPS) {
        F4 x = {{0.0f, 0.0f, 0.0f, 0.0f}};
        if (first + mine + i < k) x = load(from + i * D);
        const Split left = split(x.v[0], x.v[1]), right = split(x.v[2], x.v[3]);
        to[i * (WIDE / 4)] = make_uint2(left.hi, right.hi);
        to[i * (WIDE / 4) + PART_WORDS / 2] = make_uint2(left.lo, right.lo);
    }
    if (threadIdx.x < CHUNK) {
        const int row = first + static_cast<int>(threadIdx.x);
        bias[threadIdx.x] = row < k ? b[row] : -INFINITY;
    }
}

// This thread's pixels in the tile (i < 2) and classes in the chunk (j < 4, e < 2).
__device__ __forceinline__ int my_pixel(int i) {
    return threadIdx.x / WARP * MINE + threadIdx.x % WARP / 4 + 8 * i;
}
__device__ __forceinline__ int my_class(int j, int e) { return 8 * j + threadIdx.x % 4 * 2 + e; }

// The scores of a warp's pixels and a chunk. All lanes must call it; the rows of the tile are the
// warp's own.
__device__ __forceinline__ void scores(float (&s)[4][4], const float* tile, const unsigned* chunk,
                                       const float* bias) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int j = 0; j < 4; ++j) s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0.0f;
    const float* const f = tile + my_pixel(0) * ROW + lane % 4 * 2;
    // A load brings 16 channels of 16 classes: rows of the chunk are columns of the right factor.
    const unsigned* const w = chunk + ((lane % 8 + lane / 16 * 8) * WIDE + lane / 8 % 2 * 8) / 2;
#pragma unroll 2
    for (int c = 0; c < D; c += 16) {
        unsigned a[4], rest[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float2 x = *reinterpret_cast<const float2*>(f + i % 2 * 8 * ROW + i / 2 * 8 + c);
            const Split parts = split(x.x, x.y);
            a[i] = parts.hi;
            rest[i] = parts.lo;
        }
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
            unsigned hi[4], lo[4];
            load_matrix<false>(hi, w + (8 * j * WIDE + c) / 2);
            load_matrix<false>(lo, w + PART_WORDS + (8 * j * WIDE + c) / 2);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const unsigned high[2] = {hi[2 * i], hi[2 * i + 1]};
                const unsigned low[2] = {lo[2 * i], lo[2 * i + 1]};
                mma(s[j + i], rest, high);
                mma(s[j + i], a, low);
                mma(s[j + i], a, high);
            }
        }
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const float2 b = *reinterpret_cast<const float2*>(bias + my_class(j, 0));
        s[j][0] += b.x;
        s[j][1] += b.y;
        s[j][2] += b.x;
        s[j][3] += b.y;
    }
}

// Gives all LANES neighbours of a pixel the best score among them and its place; of equals the
// first.
template <int LANES>
__device__ __forceinline__ void best_of_lanes(float& top, int& place) {
#pragma unroll
    for (int step = 1; step < LANES; step *= 2) {
        const float score = __shfl_xor_sync(ALL_LANES, top, step);
        const int other = __shfl_xor_sync(ALL_LANES, place, step);
        if (score > top || (score == top && other < place)) {
            top = score;
            place = other;
        }
    }
}

}  // namespace PICIE_SUFFIX(head)
