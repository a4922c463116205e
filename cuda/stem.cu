// The end of a ResNet's stem: batch norm, ReLU and 3×3/2 max-pool (padding 1) of x (n, h, w, c),
// which give z (n, p, q, c), p = ⌈h/2⌉, q = ⌈w/2⌉. norm.cu computes the statistics, and the sums
// of the backward.
//
//   y = γ·x̂ + β,  z = max(0, y over the window),  argmax = 3·row + column of the window's first
//   maximum, or CLOSED where that is stored as zero;  peak = x there, or in the window's first
//   pixel; window (p, q) has its centre at pixel (2p, 2q), so it covers rows 2p − 1..2p + 1
//   dx = the gradient of batch norm from g,  g at a pixel = Σ dz of the (at most four) windows
//   whose maximum it is
//
// y is never stored. A window hands its dz to one pixel, so the sums of the backward, Σg and
// Σ g·(x − mean) over all pixels, are those of dz and peak over the windows that are open: the
// sums of a norm without pooling on maps a quarter as large. With T the bytes of x (bf16; z and
// peak have T/4, argmax T/8):
//
//   forward   stats reads T; pool reads T, writes T/4                                     2.3 T
//             where a backward follows, pool also writes T/4 of peak and T/8 of argmax    2.6 T
//   infer     reads T, writes T/4                                                         1.3 T
//   backward  norm.cu's reduce reads T/2 (dz, peak); apply reads T + 3T/8 (x, dz, argmax)
//             and writes T                                                                2.9 T
//
// Floor: those bytes at the memory's rate. 2×128 images of 160×160×64 (T = 0.84 GB): 0.51 ms
// forward, 0.56 ms backward at 4.3 TB/s. Neighbouring windows share pixels, and neighbouring pixels
// share windows: those reads meet in the caches.
//
// A thread keeps 8 channels and strides along a row of windows; stats.cuh says what `lane` and
// `wide` are.
#include "stats.cuh"

constexpr int THREADS = 128;
// The place of a maximum that is zero: no pixel gets this window's gradient.
constexpr int CLOSED = 9;

static_assert(VECTOR == 8, "the argmax of a thread's channels are the bytes of a uint2");

// The max-pool of a row of windows, after batch norm with NORM, and what a backward KEEPs of it.
// NOTE: the ReLU's zero is the first candidate, and so is what is stored as zero: as norm.cu's
// reduce finds by peak.
template <bool NORM, bool KEEP>
__device__ __forceinline__ void pool(act* __restrict__ z, unsigned char* __restrict__ argmax,
                                     act* __restrict__ peak, const act* __restrict__ x,
                                     const float* line, int h, int w, int c, int wide) {
    const Place at = place(THREADS, blockIdx.z, wide, c);
    if (!at.inside) return;
    F8 scale = {}, shift = {};
    if (NORM) {
        scale = load_floats(line + at.channel);
        shift = load_floats(line + c + at.channel);
    }
    const int p = blockIdx.x, q = (w + 1) / 2;
    // Windows at the edge read a pixel of the map twice instead of one outside, and give both the
    // name of the pixel: the maximum is the same.
    const int rows[3] = {max(2 * p - 1, 0), 2 * p, min(2 * p + 1, h - 1)};
    const int names[3] = {p > 0 ? 0 : 3, 3, 6};
    const act* image = x + size_t(blockIdx.y) * h * w * c + at.channel;
    for (int o = at.lane; o < q; o += at.lanes) {
        const int columns[3] = {max(2 * o - 1, 0), 2 * o, min(2 * o + 1, w - 1)};
        F8 best, top = {};
        int tap[8];
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            best.v[k] = STORED_AS_ZERO;
            tap[k] = CLOSED;
        }
#pragma unroll
        for (int i = 0; i < 3; ++i) {
#pragma unroll
            for (int j = 0; j < 3; ++j) {
                const F8 v = load8(image + (size_t(rows[i]) * w + columns[j]) * c);
                const int name = names[i] + (j == 0 && o == 0 ? 1 : j);
#pragma unroll
                for (int k = 0; k < 8; ++k) {
                    const float y = NORM ? fmaf(v.v[k], scale.v[k], shift.v[k]) : v.v[k];
                    const bool wins = y > best.v[k];
                    if (wins) tap[k] = name;
                    if (wins || i + j == 0) top.v[k] = v.v[k];
                    best.v[k] = max_nan(best.v[k], y);
                }
            }
        }
        const size_t out = ((size_t(blockIdx.y) * gridDim.x + p) * q + o) * c + at.channel;
        store8(z + out, best);
        if (KEEP) {
            store8(peak + out, top);
            uint2 packed = {0, 0};
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                packed.x |= unsigned(tap[k]) << 8 * k;
                packed.y |= unsigned(tap[4 + k]) << 8 * k;
            }
            *reinterpret_cast<uint2*>(argmax + out) = packed;
        }
    }
}

// z = maxpool(relu(x·scale + shift)), scale and shift from line (groups, 2, c), which norm_finalize
// wrote. argmax and peak are null where no backward follows. Grid: (p, n, tiles of channels).
KERNEL(stem_pool, THREADS)
(act* __restrict__ z, Maybe<unsigned char> __restrict__ argmax, Maybe<act> __restrict__ peak,
 const act* __restrict__ x, const float* __restrict__ line, int images_per_group, int h, int w,
 int c, int wide) {
    line += size_t(blockIdx.y / images_per_group) * 2 * c;
    if (argmax) {
        pool<true, true>(z, argmax, peak, x, line, h, w, c, wide);
    } else {
        pool<true, false>(z, argmax, peak, x, line, h, w, c, wide);
    }
}

// z = maxpool(relu(x)), where batch norm is folded into the convolution. Grid: (p, n, tiles of
// channels).
KERNEL(stem_infer, THREADS)(act* __restrict__ z, const act* __restrict__ x, int h, int w, int c,
                            int wide) {
    pool<false, false>(z, nullptr, nullptr, x, nullptr, h, w, c, wide);
}

// The four windows (p, q)..(p + 1, q + 1). The 2×2 pixels (2p, 2q)..(2p + 1, 2q + 1) belong to them
// and to no others: 9 pairs.
struct Windows {
    F8 dz[4];
    uint2 argmax[4];
};

__device__ __forceinline__ Windows windows(const act* __restrict__ dz,
                                           const unsigned char* __restrict__ argmax, size_t image,
                                           int row, int column, int p, int q, int c, int channel) {
    Windows all;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        const int i = row + k / 2, j = column + k % 2;
        // A window outside of the map names no pixel.
        const size_t at = ((image * p + min(i, p - 1)) * q + min(j, q - 1)) * c + channel;
        const uint2 name = *reinterpret_cast<const uint2*>(argmax + at);
        all.dz[k] = load8(dz + at);
        all.argmax[k].x = i < p && j < q ? name.x : ~0u;
        all.argmax[k].y = i < p && j < q ? name.y : ~0u;
    }
    return all;
}

// Where pixel k of the four lies in x. One outside of the map is replaced by one inside: no window
// names it.
__device__ __forceinline__ size_t pixel(size_t image, int row, int column, int k, int h, int w,
                                        int c, int channel) {
    return ((image * h + min(2 * row + k / 2, h - 1)) * w + min(2 * column + k % 2, w - 1)) * c +
           channel;
}

// Σ dz of the windows whose maximum is this pixel of the four.
__device__ __forceinline__ F8 gather(const Windows& all, int pixel) {
    const int a = pixel / 2, b = pixel % 2;
    F8 sum = {};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        const int i = k / 2, j = k % 2;
        if (i > a || j > b) continue;
        const unsigned tap = 3 * (a + 1 - 2 * i) + b + 1 - 2 * j;
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const unsigned name =
                ((e < 4 ? all.argmax[k].x : all.argmax[k].y) >> 8 * (e % 4)) & 0xff;
            sum.v[e] += name == tap ? all.dz[k].v[e] : 0.0f;
        }
    }
    return sum;
}

// dx from line (groups, 4, c), which norm_backward_finalize wrote. Grid: (p, n, tiles of channels).
KERNEL(stem_backward_apply, THREADS)
(act* __restrict__ dx, const act* __restrict__ dz, const unsigned char* __restrict__ argmax,
 const act* __restrict__ x, const float* __restrict__ line, int images_per_group, int h, int w,
 int c, int wide) {
    const Place at = place(THREADS, blockIdx.z, wide, c);
    if (!at.inside) return;
    line += size_t(blockIdx.y / images_per_group) * 4 * c + at.channel;
    const F8 scale = load_floats(line), slope = load_floats(line + c),
             offset = load_floats(line + 2 * c);
    const int row = blockIdx.x, p = gridDim.x, q = (w + 1) / 2;
    for (int column = at.lane; column < q; column += at.lanes) {
        const Windows all = windows(dz, argmax, blockIdx.y, row, column, p, q, c, at.channel);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const size_t i = pixel(blockIdx.y, row, column, k, h, w, c, at.channel);
            const F8 v = load8(x + i);
            F8 g = gather(all, k);
#pragma unroll
            for (int e = 0; e < 8; ++e) {
                g.v[e] = fmaf(scale.v[e], g.v[e], fmaf(slope.v[e], v.v[e], offset.v[e]));
            }
            if (2 * row + k / 2 < h && 2 * column + k % 2 < w) store8(dx + i, g);
        }
    }
}
