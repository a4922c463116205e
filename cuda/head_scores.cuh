// The scores of a tile's features for 32 classes at a time, on tensor cores.
//
//   chunk       32 rows of a classifier in shared memory, as two bf16 matrices: w = hi + lo
//   load_chunk  fills it, and the bias; barriers of the block stand before and behind
//   scores      s[j][2·i + e] = the score of pixel my_pixel(i) and class my_class(j, e)
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
// A warp and chunk: 8 × (2 LDS.128, 4 LDSM.x4, 12 HMMA, 24 to split) instructions, 192 wavefronts
// of shared memory and 96 HMMA. Of stored points in bf16, which are exact in one part, 8 × (5
// LDSM.x4, 8 HMMA), 160 wavefronts and 64 HMMA.
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

// Where channels c and c + 1 of a row lie in a part of a chunk, c even, in words. Of 32 channels
// lane t of a pixel has the 8 from 8·t on. Of an mma's left factor a lane has columns 2·t, 2·t + 1,
// 2·t + 8 and 2·t + 9, and of its sums columns 2·t and 2·t + 1: its channels, in this order.
__device__ __forceinline__ int place_of(int c) { return c / 32 * 16 + c % 8 * 2 + c % 32 / 8; }

// chunk (2, CHUNK, WIDE) = rows of w (k, D) from `first` on in two parts, zeros behind the last.
// Channels lie where place_of says, or IN_ORDER as in memory.
template <bool IN_ORDER = false>
__device__ __forceinline__ void load_rows(unsigned* chunk, const float* w, int k, int first) {
    // A warp has every fourth row, a lane four of its channels.
    const int lane = threadIdx.x % WARP, mine = threadIdx.x / WARP, next = IN_ORDER ? 1 : 4;
    const float* const from = w + static_cast<size_t>(first + mine) * D + 4 * lane;
    unsigned* const to = chunk + mine * (WIDE / 2) + (IN_ORDER ? 2 * lane : place_of(4 * lane));
#pragma unroll
    for (int i = 0; i < CHUNK; i += WARPS) {
        F4 x = {{0.0f, 0.0f, 0.0f, 0.0f}};
        if (first + mine + i < k) x = load(from + i * D);
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) {
            const Split parts = split(x.v[2 * pair], x.v[2 * pair + 1]);
            to[i * (WIDE / 2) + next * pair] = parts.hi;
            to[i * (WIDE / 2) + next * pair + PART_WORDS] = parts.lo;
        }
    }
}

// As load_rows, and bias (CHUNK) = b; behind the last row one that never wins.
template <bool IN_ORDER = false>
__device__ __forceinline__ void load_chunk(unsigned* chunk, float* bias, const float* w,
                                           const float* b, int k, int first) {
    load_rows<IN_ORDER>(chunk, w, k, first);
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

// Where this lane reads rows of a chunk: a load brings 16 channels of 16 classes, and rows of the
// chunk are columns of the right factor.
__device__ __forceinline__ const unsigned* my_rows(const unsigned* chunks) {
    const int lane = threadIdx.x % WARP;
    return chunks + ((lane % 8 + lane / 16 * 8) * WIDE + lane / 8 % 2 * 8) / 2;
}

__device__ __forceinline__ void add_biases(float (&s)[4][4], const float* biases) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const float2 b = *reinterpret_cast<const float2*>(biases + my_class(j, 0));
        s[j][0] += b.x;
        s[j][1] += b.y;
        s[j][2] += b.x;
        s[j][3] += b.y;
    }
}

// A warp's sums are so many times 8 channels.
constexpr int OCTETS = D / 8;

__device__ __forceinline__ void clear(float (&sum)[OCTETS][4]) {
#pragma unroll
    for (int i = 0; i < OCTETS; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] = 0.0f;
    }
}

// The sum of x over the 4 lanes that share a pixel.
__device__ __forceinline__ float sum_of_quad(float x) {
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}

// The largest x of the 4 lanes that share a pixel.
__device__ __forceinline__ float max_of_quad(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

// The scores of a warp's pixels and N chunks, which lie one behind the other as their biases do.
// All lanes must call it; the rows of the tile are the warp's own.
template <int N, class T>
__device__ __forceinline__ void scores(float (&s)[N][4][4], const T* tile, const unsigned* chunks,
                                       const float* biases) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int j = 0; j < 4; ++j) s[n][j][0] = s[n][j][1] = s[n][j][2] = s[n][j][3] = 0.0f;
    }
    const T* const f = tile + my_pixel(0) * PITCH<T> + lane % 4 * 8;
    const unsigned* const w = my_rows(chunks);
#pragma unroll 2
    for (int c = 0; c < D; c += 16) {
        const T* const from = f + c / 32 * 32 + c % 32 / 4;
        const F4 x[2] = {load(from), load(from + 8 * PITCH<T>)};
        unsigned a[4], rest[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const Split parts = split(x[i % 2].v[i / 2 * 2], x[i % 2].v[i / 2 * 2 + 1]);
            a[i] = parts.hi;
            rest[i] = parts.lo;
        }
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
            for (int j = 0; j < 4; j += 2) {
                const unsigned* const rows = w + n * CHUNK_WORDS + (8 * j * WIDE + c) / 2;
                unsigned hi[4], lo[4];
                load_matrix<false>(hi, rows);
                load_matrix<false>(lo, rows + PART_WORDS);
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const unsigned high[2] = {hi[2 * i], hi[2 * i + 1]};
                    const unsigned low[2] = {lo[2 * i], lo[2 * i + 1]};
                    mma(s[n][j + i], rest, high);
                    mma(s[n][j + i], a, low);
                    mma(s[n][j + i], a, high);
                }
            }
        }
    }
#pragma unroll
    for (int n = 0; n < N; ++n) add_biases(s[n], biases + n * CHUNK);
}

// Those of one chunk.
template <class T>
__device__ __forceinline__ void scores(float (&s)[4][4], const T* tile, const unsigned* chunk,
                                       const float* bias) {
    scores<1>(reinterpret_cast<float (&)[1][4][4]>(s), tile, chunk, bias);
}

// Those of one chunk, whose channels lie in order, and of rows that are bf16 already: two products.
__device__ __forceinline__ void scores(float (&s)[4][4], const __nv_bfloat16* tile,
                                       const unsigned* chunk, const float* bias) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int j = 0; j < 4; ++j) s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0.0f;
    // A load brings 16 channels of 16 rows, which are the left factor as they lie.
    const __nv_bfloat16* const f =
        tile + (my_pixel(0) / 16 * 16 + lane % 16) * PITCH<__nv_bfloat16> + lane / 16 * 8;
    const unsigned* const w = my_rows(chunk);
#pragma unroll 2
    for (int c = 0; c < D; c += 16) {
        unsigned a[4];
        load_matrix<false>(a, f + c);
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
            const unsigned* const rows = w + (8 * j * WIDE + c) / 2;
            unsigned hi[4], lo[4];
            load_matrix<false>(hi, rows);
            load_matrix<false>(lo, rows + PART_WORDS);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const unsigned high[2] = {hi[2 * i], hi[2 * i + 1]};
                const unsigned low[2] = {lo[2 * i], lo[2 * i + 1]};
                mma(s[j + i], a, low);
                mma(s[j + i], a, high);
            }
        }
    }
    add_biases(s, bias);
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
