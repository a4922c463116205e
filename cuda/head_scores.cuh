// The scores of a tile's features for 32 classes at a time: a thread has 2 pixels × 4 classes, and
// reads both operands from shared memory.
#pragma once
#include "head.cuh"

inline namespace PICIE_SUFFIX(head) {

// chunk (CHUNK, ROW) = rows of w (k, D) from `first` on, zeros behind the last.
__device__ __forceinline__ void load_rows(float* chunk, const float* w, int k, int first) {
    for (int i = threadIdx.x; i < CHUNK * D / 4; i += blockDim.x) {
        const int row = i / (D / 4), column = i % (D / 4) * 4;
        F4 x = {{0.0f, 0.0f, 0.0f, 0.0f}};
        if (first + row < k) x = load(w + static_cast<size_t>(first + row) * D + column);
        store(chunk + row * ROW + column, x);
    }
}

// As load_rows, and bias (CHUNK) = b; behind the last row a bias that never wins.
__device__ __forceinline__ void load_chunk(float* chunk, float* bias, const float* w,
                                           const float* b, int k, int first) {
    load_rows(chunk, w, k, first);
    if (threadIdx.x < CHUNK) {
        const int row = first + static_cast<int>(threadIdx.x);
        bias[threadIdx.x] = row < k ? b[row] : -INFINITY;
    }
}

// This thread's pixels in the tile (i < 2) and classes in the chunk (j < 4).
__device__ __forceinline__ int my_pixel(int i) {
    return threadIdx.x / 32 * MINE + threadIdx.x % 32 / 8 + 4 * i;
}
__device__ __forceinline__ int my_class(int j) { return threadIdx.x % 8 + 8 * j; }

// s[i][j] = the score of my_pixel(i) and my_class(j). Six wavefronts of shared memory feed 32
// multiply-adds of a lane.
__device__ __forceinline__ void scores(float (&s)[2][4], const float* tile, const float* chunk,
                                       const float* bias) {
#pragma unroll
    for (int j = 0; j < 4; ++j) s[0][j] = s[1][j] = 0.0f;
    const float* f = tile + my_pixel(0) * ROW;
    const float* w = chunk + my_class(0) * ROW;
#pragma unroll 2
    for (int c = 0; c < D; c += 4) {
        const F4 f0 = load(f + c), f1 = load(f + 4 * ROW + c);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const F4 x = load(w + 8 * j * ROW + c);
#pragma unroll
            for (int l = 0; l < 4; ++l) {
                s[0][j] += f0.v[l] * x.v[l];
                s[1][j] += f1.v[l] * x.v[l];
            }
        }
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        s[0][j] += bias[my_class(j)];
        s[1][j] += bias[my_class(j)];
    }
}

// Gives all 8 lanes of a pixel the best score among them and its place; of equals the first.
__device__ __forceinline__ void best_of_lanes(float& top, int& place) {
#pragma unroll
    for (int step = 1; step < 8; step *= 2) {
        const float score = __shfl_xor_sync(ALL_LANES, top, step);
        const int other = __shfl_xor_sync(ALL_LANES, place, step);
        if (score > top || (score == top && other < place)) {
            top = score;
            place = other;
        }
    }
}

}  // namespace PICIE_SUFFIX(head)
