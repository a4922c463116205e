// How the finalizing kernels of batch norm add up what blocks have left.
#pragma once

#include "common.cuh"

// Channels of a block of the finalizing kernels, and groups that it adds up at once.
constexpr int FINALIZED = 4, TOGETHER = 2;

static_assert(WARP % FINALIZED == 0, "warps have all channels of a block");
static_assert(TOGETHER * FINALIZED <= WARP, "a warp has the sums of all groups at hand");
static_assert((FINALIZED & (FINALIZED - 1)) == 0, "lanes of a channel are summed by halves");
static_assert(VECTOR % FINALIZED == 0, "channels are a multiple of a block's");

// Two sums over the chunks of a group.
struct Totals {
    double first, second;
};

// Where a thread of a finalizing kernel stands: its channel and, in the first TOGETHER · FINALIZED
// threads, the one of the groups from `first` on whose sums it has.
struct Share {
    int mine, channel, group;
    bool has;
};

__device__ __forceinline__ Share share_of(int first, int groups) {
    const int mine = threadIdx.x % FINALIZED, group = first + threadIdx.x / FINALIZED;
    const bool has = threadIdx.x < TOGETHER * FINALIZED && group < groups;
    return {mine, int(blockIdx.x) * FINALIZED + mine, has ? group : first, has};
}

// The sums of partial (groups, chunks, 2, c) for the threads that have one; all must call it. In
// f64, as there may be hundreds of chunks. Groups wait for memory together.
template <int THREADS>
__device__ __forceinline__ Totals totals(const float* partial, const Share& share, int first,
                                         int groups, int chunks, int c) {
    const int warp = threadIdx.x / WARP;
    // (warps, TOGETHER, 2, FINALIZED)
    SHARED(double, shared, THREADS / WARP * TOGETHER * 2 * FINALIZED);
    // Each thread its chunks, then each warp its threads, then all warps.
    double sums[TOGETHER][2] = {};
#pragma unroll 4
    for (int i = threadIdx.x / FINALIZED; i < chunks; i += THREADS / FINALIZED) {
#pragma unroll
        for (int t = 0; t < TOGETHER; ++t) {
            if (first + t >= groups) continue;
            const float* at = partial + (size_t(first + t) * chunks + i) * 2 * c + share.channel;
            sums[t][0] += at[0];
            sums[t][1] += at[c];
        }
    }
    // Those of the groups before have been read.
    __syncthreads();
#pragma unroll
    for (int k = 0; k < 2 * TOGETHER; ++k) {
        double sum = sums[k / 2][k % 2];
#pragma unroll
        for (int step = FINALIZED; step < WARP; step *= 2)
            sum += __shfl_xor_sync(ALL_LANES, sum, step);
        if (threadIdx.x % WARP < FINALIZED)
            shared[(warp * 2 * TOGETHER + k) * FINALIZED + share.mine] = sum;
    }
    __syncthreads();
    const int own = 2 * (share.group - first);
    Totals all = {0.0, 0.0};
    for (int i = 0; i < THREADS / WARP; ++i) {
        all.first += shared[(i * 2 * TOGETHER + own) * FINALIZED + share.mine];
        all.second += shared[(i * 2 * TOGETHER + own + 1) * FINALIZED + share.mine];
    }
    return all;
}

// What the thread that has group `t` of those at hand has for this thread's channel. The first warp
// must call it.
__device__ __forceinline__ float of_group(float value, const Share& share, int t) {
    return __shfl_sync(ALL_LANES, value, t * FINALIZED + share.mine);
}
