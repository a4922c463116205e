// What the kernels share that label pixels (or stored points) and sum them by cluster: the best
// class of each, counts and sums by cluster, and how sums of several blocks are put together.
#pragma once
#include "head_scores.cuh"

inline namespace PICIE_SUFFIX(head) {

// Up to so many clusters are summed in shared memory, beside the tile.
constexpr int NEAR = 64;
// Columns of a block that adds partial sums: a warp has one row of them.
constexpr int SUMMED = WARP;

static_assert(TILE <= 2 * WARP, "a warp adds up the best scores of a tile");
static_assert(THREADS == 2 * D, "two threads have a channel of sums by cluster");
static_assert(TILE_BYTES + (NEAR * D + CHUNK * (ROW + 1) + 2 * TILE) * sizeof(float) <= MOST_SHARED,
              "a tile, near sums, a chunk and its bias, labels and scores fit");

// labels (TILE), best (TILE) = the best class (the first of equals) of each pixel, and its score.
// Where all k classes fit one chunk the caller has loaded it. Begins and ends with a barrier.
__device__ __forceinline__ void arg_max(int* labels, float* best, const float* tile, float* chunk,
                                        float* bias, const float* w, const float* b, int k) {
    float top[2] = {-INFINITY, -INFINITY};
    int place[2] = {0, 0};
    for (int first = 0; first < k; first += CHUNK) {
        __syncthreads();
        if (k > CHUNK) {
            load_chunk(chunk, bias, w, b, k, first);
            __syncthreads();
        }
        float s[2][4];
        scores(s, tile, chunk, bias);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                if (s[i][j] > top[i]) {
                    top[i] = s[i][j];
                    place[i] = first + my_class(j);
                }
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        best_of_lanes(top[i], place[i]);
        if (threadIdx.x % 8 == 0) {
            labels[my_pixel(i)] = place[i];
            best[my_pixel(i)] = top[i];
        }
    }
    __syncthreads();
}

// counts += the labels of the first `rows` pixels of the tile: one atomic a label that occurs, by
// the first pixel that has it.
__device__ __forceinline__ void count(unsigned* counts, const int* labels, int rows) {
    const int p = threadIdx.x;
    if (p >= rows) return;
    const int mine = labels[p];
    unsigned same = 0, before = 0;
    for (int q = 0; q < rows; ++q) {
        same += labels[q] == mine;
        before += q < p && labels[q] == mine;
    }
    if (before == 0) atomicAdd(counts + mine, same);
}

// sums (k, D) += the first `rows` rows of the tile, each to the row of its label. A thread owns a
// channel of the clusters of one parity.
__device__ __forceinline__ void add_rows(float* sums, const float* tile, const int* labels,
                                         int rows) {
    const int c = threadIdx.x % D, parity = threadIdx.x / D;
    for (int p = 0; p < rows; ++p) {
        const int label = labels[p];
        if (label % 2 == parity) sums[static_cast<size_t>(label) * D + c] += tile[p * ROW + c];
    }
}

// sums (k, D) = 0, each by the thread that owns it in add_rows.
__device__ __forceinline__ void clear_rows(float* sums, int k) {
    for (int row = threadIdx.x / D; row < k; row += 2)
        sums[static_cast<size_t>(row) * D + threadIdx.x % D] = 0.0f;
}

// out (k, D) = sums, each by the thread that owns it in add_rows.
__device__ __forceinline__ void copy_rows(float* out, const float* sums, int k) {
    for (int row = threadIdx.x / D; row < k; row += 2) {
        const size_t at = static_cast<size_t>(row) * D + threadIdx.x % D;
        out[at] = sums[at];
    }
}

// The sum of the first `rows` scores of `best`, returned in every lane of a warp.
__device__ __forceinline__ float sum_of_best(const float* best, int rows) {
    const int lane = threadIdx.x % 32;
    return warp_sum((lane < rows ? best[lane] : 0.0f) +
                    (lane + 32 < rows ? best[lane + 32] : 0.0f));
}

// sums (len) += Σ partial (parts, len), SUMMED columns a block, WARPS threads a column; unless null
// score (1) += Σ partial_score (parts), by the first block. `columns` (THREADS) and `scores`
// (THREADS) are shared memory.
__device__ __forceinline__ void add_partials(float* sums, float* score, const float* partial,
                                             const double* partial_score, int parts, size_t len,
                                             float* columns, double* scores) {
    const int t = threadIdx.x, row = t / SUMMED;
    const size_t column = static_cast<size_t>(blockIdx.x) * SUMMED + t % SUMMED;
    float sum = 0.0f;
    if (column < len) {
        for (int part = row; part < parts; part += WARPS) sum += partial[part * len + column];
    }
    columns[t] = sum;
    double share = 0.0;
    if (blockIdx.x == 0 && score != nullptr) {
        for (int part = t; part < parts; part += THREADS) share += partial_score[part];
    }
    scores[t] = share;
    __syncthreads();
    if (row == 0 && column < len) {
        float total = 0.0f;
        for (int i = 0; i < WARPS; ++i) total += columns[SUMMED * i + t];
        sums[column] += total;
    }
    if (blockIdx.x == 0 && t == 0 && score != nullptr) {
        double total = 0.0;
        for (int i = 0; i < THREADS; ++i) total += scores[i];
        *score += static_cast<float>(total);
    }
}

}  // namespace PICIE_SUFFIX(head)
