// Two sums of each channel over the rows of a matrix, which batch norm needs forward and backward:
// which thread reads what, and how a block adds up.
//
// A thread keeps one column of 8 channels (16 bytes of bf16) and strides over rows: `wide` threads,
// a power of two of at most MOST_WIDE, stand side by side along a row; the others stand on other
// rows. So a warp reads 512 contiguous bytes where c >= 64.
#pragma once

#include "common.cuh"

// The most threads side by side along a row: MOST_WIDE · VECTOR channels are a tile.
constexpr int MOST_WIDE = 32;

static_assert((MOST_WIDE & (MOST_WIDE - 1)) == 0, "a thread's column is found with a mask");

struct Place {
    int channel;  // the first of the thread's 8 channels
    int lane;     // the first row of the thread
    int lanes;    // rows that the block reads at once
    bool inside;  // whether the channel exists: channel < c
};

// Where this thread stands in a block of `threads`; `tile` counts tiles of 8·wide channels.
__device__ __forceinline__ Place place(int threads, int tile, int wide, int c) {
    Place at;
    at.channel = (tile * wide + (int(threadIdx.x) & (wide - 1))) * VECTOR;
    at.lane = threadIdx.x / wide;
    at.lanes = threads / wide;
    at.inside = at.channel < c;
    return at;
}

// p is aligned to 16 bytes.
__device__ __forceinline__ F8 load_floats(const float* p) {
    const float4 lo = reinterpret_cast<const float4*>(p)[0],
                 hi = reinterpret_cast<const float4*>(p)[1];
    return {{lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w}};
}

// y = x·scale + shift is γ·(x − mean)·rstd + β. NOTE: the forward and the backward must find the
// same sign of y, so the roundings are spelt out.
struct Affine {
    float scale, shift;
};
__device__ __forceinline__ Affine affine(float mean, float rstd, float gamma, float beta) {
    const float scale = gamma * rstd;
    return {scale, fmaf(-mean, scale, beta)};
}

// Positive numbers up to here are stored as zero: half of the smallest that act has.
#if defined(PICIE_ACT_F32)
constexpr float STORED_AS_ZERO = 0.0f;
#elif defined(PICIE_ACT_BF16)
constexpr float STORED_AS_ZERO = 0x1p-134f;
#else
constexpr float STORED_AS_ZERO = 0x1p-25f;
#endif

// sums (2, c) = the block's sums of `first` and of `second`, added row of threads after row of
// threads. All threads of the block must call it.
template <int THREADS>
__device__ __forceinline__ void block_sums(float* sums, const F8& first, const F8& second, int tile,
                                           int wide, int c) {
    static_assert(THREADS % MOST_WIDE == 0, "rows of threads are full");
    static_assert(THREADS * 2 * VECTOR * sizeof(float) <= PLAIN_SHARED, "sums fit");
    // (lanes, 2, wide · 8)
    SHARED(float, shared, THREADS * 2 * VECTOR);
    const int width = wide * VECTOR, column = threadIdx.x & (wide - 1), lane = threadIdx.x / wide;
    float* mine = shared + lane * 2 * width + column * VECTOR;
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
        mine[i] = first.v[i];
        mine[width + i] = second.v[i];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * width; i += THREADS) {
        const int half = i >= width, channel = tile * width + i - half * width;
        float sum = 0.0f;
        for (int l = 0; l < THREADS / wide; ++l) sum += shared[l * 2 * width + i];
        if (channel < c) sums[half * c + channel] = sum;
    }
}
