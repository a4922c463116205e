// From the gradient of F down to the laterals: the adjoints of the warp and of the merge.
//
// They are gathers: each pixel of the result sums the gradients of the samples that it gave to, in
// a fixed order; every fine pixel is read about four times, once of them from memory. Bytes:
// n·h·w·128·sizeof(act) in and a third of that out, and as much in and out for the warp.
#include "head.cuh"

// One side of a map: `len` pixels that were resampled to `samples`.
struct Side {
    int len, samples;

    // The weight of pixel j in sample i.
    __device__ __forceinline__ float weight(int i, int j) const {
        const Tap at = tap(i, len, ratio(len, samples));
        return (at.lo == j ? 1.0f - at.t : 0.0f) + (at.hi == j ? at.t : 0.0f);
    }

    // The first and the last sample between the neighbours of pixel j: others do not weigh it.
    __device__ __forceinline__ int first(int j) const {
        const int i = static_cast<int>(floorf((j - 0.5f) * ratio(samples, len) - 0.5f));
        return i > 0 ? i : 0;
    }
    __device__ __forceinline__ int last(int j) const {
        const int i = static_cast<int>(ceilf((j + 1.5f) * ratio(samples, len) - 0.5f));
        return i < samples - 1 ? i : samples - 1;
    }
};

// The gradient of pixel (y, x) of a map, from that of its samples dout (rows.samples,
// columns.samples, D), which are mirrored if `flip`. A warp has a pixel; a lane keeps the weight of
// one column of 32.
__device__ __forceinline__ F4 adjoint(const act* dout, const Side& rows, const Side& columns, int y,
                                      int x, bool flip) {
    const int lane = threadIdx.x % 32, width = columns.samples, end = columns.last(x) + 1,
              bottom = rows.last(y);
    F4 sum = {{0.0f, 0.0f, 0.0f, 0.0f}};
    for (int base = columns.first(x); base < end; base += 32) {
        const float mine = base + lane < end ? columns.weight(base + lane, x) : 0.0f;
        const int count = end - base < 32 ? end - base : 32;
        for (int v = rows.first(y); v <= bottom; ++v) {
            const float down = rows.weight(v, y);
            const act* line = dout + v * width * D;
#pragma unroll 2
            for (int i = 0; i < count; ++i) {
                const float weight = down * __shfl_sync(ALL_LANES, mine, i);
                const int u = flip ? width - 1 - (base + i) : base + i;
                if (weight != 0.0f) add_scaled(sum, weight, load(line + u * D));
            }
        }
    }
    return sum;
}

// dp2 (n, h, w, D) = the gradient of F from that of its warp, for images that are warped; those of
// others stay as they are. A warp a pixel; grid (⌈pixels/WARPS⌉, n).
KERNEL(head_unwarp, THREADS)(act* __restrict__ dp2, const act* __restrict__ dwarped,
                             const Crop* __restrict__ crops, int h, int w) {
    const int pixel = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    const Window window = window_of(crops, blockIdx.y, h, w);
    if (pixel >= h * w || window.side == 0) return;
    const size_t image = static_cast<size_t>(blockIdx.y) * h * w * D + 4 * lane;
    const int y = pixel / w - window.top, x = pixel % w - window.left;
    F4 sum = {{0.0f, 0.0f, 0.0f, 0.0f}};
    if (y >= 0 && y < window.side && x >= 0 && x < window.side) {
        sum = adjoint(dwarped + image, {window.side, h}, {window.side, w}, y, x, window.flip);
    }
    store4(dp2 + image + pixel * D, sum);
}

// dcoarse (n, h, w, D) = the adjoint of up-sampling from (h, w) to the size of dfine (n, fine_h,
// fine_w, D). A warp a pixel; grid (⌈pixels/WARPS⌉, n).
KERNEL(head_down, THREADS)(act* __restrict__ dcoarse, const act* __restrict__ dfine, int h, int w,
                           int fine_h, int fine_w) {
    const int pixel = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (pixel >= h * w) return;
    dcoarse += static_cast<size_t>(blockIdx.y) * h * w * D + 4 * lane;
    dfine += static_cast<size_t>(blockIdx.y) * fine_h * fine_w * D + 4 * lane;
    store4(dcoarse + pixel * D,
           adjoint(dfine, {h, fine_h}, {w, fine_w}, pixel / w, pixel % w, false));
}
