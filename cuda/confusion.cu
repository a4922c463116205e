// The confusion histogram: counts (classes, clusters) += 1 at (labels[i], pred[i]) for every pixel
// whose label is not 255.
//
// Bytes: pred u16 and labels u8, 3 a pixel, and the counts once a block. Neighbouring pixels mostly
// fall into one cell, so a thread adds up runs of equal cells among its 8 pixels before it touches
// the histogram: without that, a warp's additions to one cell would queue. Integers have no order
// to keep, so atomics give the same counts every time.
#include "common.cuh"

constexpr int THREADS = 256;
// Pixels that a thread takes at once.
constexpr int PIXELS = 8;

// The pixels of a thread, read as 16 bytes of predictions and 8 of labels.
struct alignas(16) Preds {
    unsigned short v[PIXELS];
};
struct alignas(8) Labels {
    unsigned char v[PIXELS];
};
static_assert(sizeof(Preds) == 16 && sizeof(Labels) == 8, "a thread's pixels are two accesses");

// Adds the pixels of this thread to a histogram.
__device__ __forceinline__ void count(unsigned* histogram, const unsigned short* __restrict__ pred,
                                      const unsigned char* __restrict__ labels, size_t pixels,
                                      int clusters) {
    const size_t stride = size_t(gridDim.x) * THREADS * PIXELS;
    for (size_t i = (size_t(blockIdx.x) * THREADS + threadIdx.x) * PIXELS; i < pixels;
         i += stride) {
        // Load 8 pixels; those behind the last count as not labelled.
        Preds p{};
        Labels label;
        if (i + PIXELS <= pixels) {
            p = *reinterpret_cast<const Preds*>(pred + i);
            label = *reinterpret_cast<const Labels*>(labels + i);
        } else {
#pragma unroll
            for (int k = 0; k < PIXELS; ++k) {
                label.v[k] = i + k < pixels ? labels[i + k] : 255;
                if (i + k < pixels) p.v[k] = pred[i + k];
            }
        }
        // Add them up by runs of one cell.
        int cell = -1;
        unsigned run = 0;
#pragma unroll
        for (int k = 0; k < PIXELS; ++k) {
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

// Each block counts in a histogram of its own in dynamic shared memory, of `cells` =
// classes·clusters numbers, and adds that to `counts`.
KERNEL(confusion_shared,
       THREADS)(unsigned* __restrict__ counts, const unsigned short* __restrict__ pred,
                const unsigned char* __restrict__ labels, size_t pixels, int cells, int clusters) {
    DYNAMIC_SHARED(unsigned, histogram);
    for (int i = threadIdx.x; i < cells; i += THREADS) histogram[i] = 0;
    __syncthreads();
    count(histogram, pred, labels, pixels, clusters);
    __syncthreads();
    for (int i = threadIdx.x; i < cells; i += THREADS) {
        if (histogram[i] > 0) atomicAdd(counts + i, histogram[i]);
    }
}

// All blocks count in `counts` itself, where a histogram does not fit into shared memory: of so
// many cells few are hit at once.
KERNEL(confusion_global,
       THREADS)(unsigned* __restrict__ counts, const unsigned short* __restrict__ pred,
                const unsigned char* __restrict__ labels, size_t pixels, int clusters) {
    count(counts, pred, labels, pixels, clusters);
}
