// The end of a ResNet's stem: batch norm, ReLU and 3×3/2 max-pool (padding 1) of x (n, h, w, c),
// which give z (n, p, q, c), p = ⌈h/2⌉, q = ⌈w/2⌉. norm.cu computes the statistics, and the sums
// of the backward.
//
//   y = γ·x̂ + β,  z = max(0, y over the window),  argmax = 3·row + column of the window's first
//   maximum, or CLOSED where that is stored as zero;  peak = x there, or anywhere in a window that
//   is CLOSED; window (p, q) has its centre at pixel (2p, 2q), so it covers rows 2p − 1..2p + 1
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
// forward, 0.56 ms backward at 4.3 TB/s. Columns of pixels that
// windows side by side share meet in the L1 cache; of rows, which windows below each other share,
// those between two strips alone are read twice, a sixteenth of x.
//
// A thread keeps 8 channels of a column of windows and walks down a strip of them; stats.cuh says
// what `lane` and `wide` are.
#include "stats.cuh"

constexpr int THREADS = 128;
// The place of a maximum that is zero: no pixel gets this window's gradient.
constexpr int CLOSED = 9;
// Rows of windows that a thread walks down.
constexpr int STRIP = 8;

static_assert(VECTOR == 8, "the argmax of a thread's channels are the bytes of a uint2");

// A pixel's x, and its place in a window. NOTE: a 16-bit x leaves the lower half of a word, or of
// f16 13 bits, for the place, so that both are chosen by one instruction.
#if defined(PICIE_ACT_F32)
struct Mark {
    float x;
    int place;
};
__device__ __forceinline__ Mark mark(float x, int place) { return {x, place}; }
__device__ __forceinline__ float x_of(const Mark& mark) { return mark.x; }
__device__ __forceinline__ int place_of(const Mark& mark) { return mark.place; }
__device__ __forceinline__ Mark moved(const Mark& mark, int by) {
    return {mark.x, mark.place + by};
}
#else
typedef unsigned Mark;
constexpr unsigned PLACES = 15;
__device__ __forceinline__ Mark mark(float x, int place) { return __float_as_uint(x) | place; }
__device__ __forceinline__ float x_of(Mark mark) { return __uint_as_float(mark & ~PLACES); }
__device__ __forceinline__ int place_of(Mark mark) { return mark & PLACES; }
__device__ __forceinline__ Mark moved(Mark mark, int by) { return mark + by; }
#endif

// The first maximum of y over some pixels of a window, by channels.
struct Best {
    F8 y;
    Mark mark[VECTOR];

    // Takes `other` where it is larger; all of its pixels come behind these.
    template <bool KEEP>
    __device__ __forceinline__ void meet(const Best& other) {
#pragma unroll
        for (int k = 0; k < VECTOR; ++k) {
            if (KEEP && other.y.v[k] > y.v[k]) mark[k] = other.mark[k];
            y.v[k] = max_nan(y.v[k], other.y.v[k]);
        }
    }
};

// Three pixels side by side as they lie in memory.
struct Three {
    Pack<8> pixel[3];

    __device__ static Three load(const act* row, const int columns[3]) {
        return {load_pack(row + columns[0]), load_pack(row + columns[1]),
                load_pack(row + columns[2])};
    }
};

// Their maximum, after batch norm with NORM; the first is in `place` of its window. At the map's
// left edge the first is there twice, instead of a pixel outside.
template <bool NORM, bool KEEP>
__device__ __forceinline__ Best best_of(const Three& three, const F8& scale, const F8& shift,
                                        int place, bool left) {
    Best best;
#pragma unroll
    for (int j = 0; j < 3; ++j) {
        const F8 v = unpack(three.pixel[j]);
        Best one;
#pragma unroll
        for (int k = 0; k < VECTOR; ++k) {
            one.y.v[k] = NORM ? fmaf(v.v[k], scale.v[k], shift.v[k]) : v.v[k];
            if (KEEP) one.mark[k] = mark(v.v[k], place + (j == 0 && left ? 1 : j));
        }
        if (j == 0) {
            best = one;
        } else {
            best.meet<KEEP>(one);
        }
    }
    return best;
}

// The max-pool of a strip of windows, after batch norm with NORM, and what a backward KEEPs of it.
// A thread walks down, so that the row of pixels that two windows share is read once. NOTE: the
// ReLU's zero is the first candidate, and so is what is stored as zero: as norm.cu's reduce finds
// by peak.
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
    const int p = (h + 1) / 2, q = (w + 1) / 2;
    const int start = blockIdx.x * STRIP, end = min(start + STRIP, p);
    const act* image = x + size_t(blockIdx.y) * h * w * c + at.channel;
    const size_t row = size_t(w) * c;
    for (int o = at.lane; o < q; o += at.lanes) {
        const bool left = o == 0;
        const int columns[3] = {max(2 * o - 1, 0) * c, 2 * o * c, min(2 * o + 1, w - 1) * c};
        size_t out = ((size_t(blockIdx.y) * p + start) * q + o) * c + at.channel;
        // The row above a window; at the map's upper edge the window's second row, whose pixels
        // then have the places of that one.
        const act* pixels = image + size_t(max(2 * start - 1, 0)) * row;
        Best above = best_of<NORM, KEEP>(Three::load(pixels, columns), scale, shift,
                                         start > 0 ? 0 : 3, left);
        for (int i = start; i < end; ++i, out += size_t(q) * c) {
            pixels = image + size_t(2 * i) * row;
            const bool last = 2 * i + 1 >= h;
            const Three second = Three::load(pixels, columns),
                        third = Three::load(last ? pixels : pixels + row, columns);
            above.meet<KEEP>(best_of<NORM, KEEP>(second, scale, shift, 3, left));
            const Best below = best_of<NORM, KEEP>(third, scale, shift, last ? 3 : 6, left);
            above.meet<KEEP>(below);
            F8 top;
            unsigned taps[2] = {0, 0};
#pragma unroll
            for (int k = 0; k < VECTOR; ++k) {
                if (KEEP) {
                    const unsigned tap =
                        above.y.v[k] > STORED_AS_ZERO ? place_of(above.mark[k]) : CLOSED;
                    taps[k / 4] |= tap << 8 * (k % 4);
                    top.v[k] = x_of(above.mark[k]);
                }
                above.y.v[k] = max_nan(above.y.v[k], STORED_AS_ZERO);
            }
            store8(z + out, above.y);
            if (KEEP) {
                store8(peak + out, top);
                *reinterpret_cast<uint2*>(argmax + out) = {taps[0], taps[1]};
            }
            // The third row is the first of the next window.
            above.y = below.y;
#pragma unroll
            for (int k = 0; k < VECTOR; ++k)
                if (KEEP) above.mark[k] = moved(below.mark[k], -6);
        }
    }
}

// z = maxpool(relu(x·scale + shift)), scale and shift from line (groups, 2, c), which norm_finalize
// wrote. argmax and peak are null where no backward follows. Grid: (strips, n, tiles of channels).
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

// z = maxpool(relu(x)), where batch norm is folded into the convolution. Grid: (strips, n, tiles of
// channels).
KERNEL(stem_infer, THREADS)(act* __restrict__ z, const act* __restrict__ x, int h, int w, int c,
                            int wide) {
    pool<false, false>(z, nullptr, nullptr, x, nullptr, h, w, c, wide);
}

// Two windows side by side: what they hand down, and the places in them. A window outside of the
// map names no pixel.
struct Pair {
    Pack<8> dz[2];
    uint2 argmax[2];

    __device__ static Pair load(const act* __restrict__ dz,
                                const unsigned char* __restrict__ argmax, size_t first,
                                size_t second, bool both) {
        Pair pair = {{load_pack(dz + first), load_pack(dz + second)},
                     {*reinterpret_cast<const uint2*>(argmax + first),
                      *reinterpret_cast<const uint2*>(argmax + second)}};
        if (!both) pair.argmax[1] = {~0u, ~0u};
        return pair;
    }
};

// sum += dz of a window where its maximum is in place `tap`.
__device__ __forceinline__ void gather(F8& sum, const F8& dz, uint2 argmax, unsigned tap) {
#pragma unroll
    for (int k = 0; k < VECTOR; ++k) {
        const unsigned byte = 8 * (k % 4), names = k < 4 ? argmax.x : argmax.y;
        sum.v[k] += (names & 0xffu << byte) == tap << byte ? dz.v[k] : 0.0f;
    }
}

// dx from line (groups, 4, c), which norm_backward_finalize wrote. A thread walks down a strip of
// windows, of each the 2×2 pixels from its centre on: they belong to it, to those at its right and
// below, and to no others. Grid: (strips, n, tiles of channels).
KERNEL(stem_backward_apply, THREADS)
(act* __restrict__ dx, const act* __restrict__ dz, const unsigned char* __restrict__ argmax,
 const act* __restrict__ x, const float* __restrict__ line, int images_per_group, int h, int w,
 int c, int wide) {
    const Place at = place(THREADS, blockIdx.z, wide, c);
    if (!at.inside) return;
    line += size_t(blockIdx.y / images_per_group) * 4 * c + at.channel;
    const F8 scale = load_floats(line), slope = load_floats(line + c),
             offset = load_floats(line + 2 * c);
    const int p = (h + 1) / 2, q = (w + 1) / 2;
    const int start = blockIdx.x * STRIP, end = min(start + STRIP, p);
    for (int column = at.lane; column < q; column += at.lanes) {
        const bool both = column + 1 < q, wide_enough = 2 * column + 1 < w;
        // Of the first window of the next row.
        size_t window = ((size_t(blockIdx.y) * p + start) * q + column) * c + at.channel;
        const size_t right = both ? c : 0;
        Pair upper = Pair::load(dz, argmax, window, window + right, both);
        size_t pixel = ((size_t(blockIdx.y) * h + 2 * start) * w + 2 * column) * c + at.channel;
        for (int row = start; row < end; ++row, pixel += size_t(2) * w * c) {
            const bool more = row + 1 < p, high_enough = 2 * row + 1 < h;
            if (more) window += size_t(q) * c;
            Pair lower = Pair::load(dz, argmax, window, window + right, both);
            if (!more) lower.argmax[0] = lower.argmax[1] = {~0u, ~0u};
            // A pixel outside of the map is replaced by one inside, and not stored.
            const size_t beside = wide_enough ? c : 0, below = high_enough ? size_t(w) * c : 0;
            const size_t places[4] = {pixel, pixel + beside, pixel + below, pixel + below + beside};
            Pack<8> pixels[4];
#pragma unroll
            for (int k = 0; k < 4; ++k) pixels[k] = load_pack(x + places[k]);
            const F8 own = unpack(upper.dz[0]), beside_dz = unpack(upper.dz[1]),
                     below_dz = unpack(lower.dz[0]), across_dz = unpack(lower.dz[1]);
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const int a = k / 2, b = k % 2;
                F8 g = {};
                gather(g, own, upper.argmax[0], 3 * (a + 1) + b + 1);
                if (b) gather(g, beside_dz, upper.argmax[1], 3 * (a + 1));
                if (a) gather(g, below_dz, lower.argmax[0], b + 1);
                if (a && b) gather(g, across_dz, lower.argmax[1], 0);
                const F8 v = unpack(pixels[k]);
#pragma unroll
                for (int e = 0; e < VECTOR; ++e)
                    g.v[e] = fmaf(scale.v[e], g.v[e], fmaf(slope.v[e], v.v[e], offset.v[e]));
                if ((!a || high_enough) && (!b || wide_enough)) store8(dx + places[k], g);
            }
            upper = lower;
        }
    }
}
