// The confusion histogram: counts (classes, clusters) += 1 at (labels[i], pred[i]) for every pixel whose label is not 255.
//
// pred u16, labels u8 (pixels): 3 bytes a pixel, and the counts once a block. Neighbouring pixels mostly fall into one cell, so a
// thread adds up runs of its 8 pixels before it touches the histogram: without that, a warp's additions to one cell would queue.
// Integers have no order to keep, so atomics give the same counts every time.
#include "common.cuh"

constexpr int N = 8;

// The pixels of a thread, 16 and 8 bytes at once.
struct alignas(16) Preds {
    unsigned short v[N];
};
struct alignas(8) Labels {
    unsigned char v[N];
};

// Adds the pixels that fall to this thread to a histogram.
__device__ __forceinline__ void count(unsigned* histogram, const unsigned short* __restrict__ pred,
                                      const unsigned char* __restrict__ labels, size_t pixels, int clusters) {
    const size_t stride = size_t(gridDim.x) * 256 * N;
    for (size_t i = (size_t(blockIdx.x) * 256 + threadIdx.x) * N; i < pixels; i += stride) {
        Preds p{};
        Labels label;
        if (i + N <= pixels) {
            p = *reinterpret_cast<const Preds*>(pred + i);
            label = *reinterpret_cast<const Labels*>(labels + i);
        } else {
#pragma unroll
            for (int k = 0; k < N; ++k) {
                label.v[k] = i + k < pixels ? labels[i + k] : 255;
                if (i + k < pixels) p.v[k] = pred[i + k];
            }
        }
        int cell = -1;
        unsigned run = 0;
#pragma unroll
        for (int k = 0; k < N; ++k) {
            if (label.v[k] == 255) continue;
            const int at = label.v[k] * clusters + p.v[k];
            if (at != cell && run > 0) {
                atomicAdd(histogram + cell, run);
                run = 0;
            }
            cell = at;
            ++run;
        }
        if (run > 0) atomicAdd(histogram + cell, run);
    }
}

// Each block counts in a histogram of its own, of `cells` = classes·clusters numbers in dynamic shared memory.
KERNEL(confusion_shared, 256)(unsigned* __restrict__ counts, const unsigned short* __restrict__ pred,
                              const unsigned char* __restrict__ labels, size_t pixels, int cells, int clusters) {
    DYNAMIC_SHARED(unsigned, histogram);
    for (int i = threadIdx.x; i < cells; i += 256) histogram[i] = 0;
    __syncthreads();
    count(histogram, pred, labels, pixels, clusters);
    __syncthreads();
    for (int i = threadIdx.x; i < cells; i += 256) {
        if (histogram[i] > 0) atomicAdd(counts + i, histogram[i]);
    }
}

// Where a histogram does not fit into shared memory. Many cells: few collide.
KERNEL(confusion_global, 256)(unsigned* __restrict__ counts, const unsigned short* __restrict__ pred,
                              const unsigned char* __restrict__ labels, size_t pixels, int clusters) {
    count(counts, pred, labels, pixels, clusters);
}
