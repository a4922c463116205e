// What the kernels of head and k-means share. All of them work on tiles of 64 pixels (or stored
// points) of 128 channels:
//
//   fill    merge → warp → F̂ into shared memory (head_fill.cuh)
//   scores  s = F̂·wᵀ + b, 32 classes at a time (head_scores.cuh); memory does not grow with the
//           number of classes
//
// F and F̂ are computed anew by every op; only head_features stores them.
#pragma once
#include "common.cuh"
#include "draws.cuh"

// NOTE: one namespace an element type, because the software GPU links all of them into one library.
inline namespace PICIE_SUFFIX(head) {

// Channels of a feature.
constexpr int D = 128;
// Pixels of a block.
constexpr int TILE = 64;
// Classes whose scores are computed at once.
constexpr int CHUNK = 32;
constexpr int THREADS = 128;
constexpr int WARPS = THREADS / WARP;
// Pixels of a tile that a warp fills and scores.
constexpr int MINE = TILE / WARPS;
// Floats from row to row in shared memory: 16-byte reads of two rows at four places 8 channels
// apart fall on different banks, and so do reads of every second row.
constexpr int ROW = D + 4;
constexpr int TILE_BYTES = TILE * ROW * sizeof(float);
// A norm below this counts as this constant.
constexpr float EPS = 1e-12f;

static_assert(D == 4 * WARP, "a lane has four channels of a pixel");
static_assert(MINE * WARPS == TILE && MINE == 16, "a warp's pixels are the rows of an mma");
static_assert(CHUNK == 32, "a chunk is four times the 8 columns of an mma");
static_assert(ROW % 4 == 0, "rows are written 16 bytes at a time");
static_assert(ROW % 32 == 4, "two rows fall on different banks, and so do every second");

template <class T>
struct alignas(sizeof(T) * 4) Four {
    T v[4];
};

template <class T>
__device__ __forceinline__ F4 load(const T* p) {
    const Four<T> four = *reinterpret_cast<const Four<T>*>(p);
    return {{to_float(four.v[0]), to_float(four.v[1]), to_float(four.v[2]), to_float(four.v[3])}};
}

__device__ __forceinline__ void store(float* p, const F4& x) {
    *reinterpret_cast<Four<float>*>(p) = {{x.v[0], x.v[1], x.v[2], x.v[3]}};
}

__device__ __forceinline__ void add(F4& a, const F4& b) {
#pragma unroll
    for (int i = 0; i < 4; ++i) a.v[i] += b.v[i];
}

// y += a·x.
__device__ __forceinline__ void add_scaled(F4& y, float a, const F4& x) {
#pragma unroll
    for (int i = 0; i < 4; ++i) y.v[i] += a * x.v[i];
}

__device__ __forceinline__ float dot(const F4& a, const F4& b) {
    return a.v[0] * b.v[0] + a.v[1] * b.v[1] + a.v[2] * b.v[2] + a.v[3] * b.v[3];
}

__device__ __forceinline__ F4 lerp(const F4& a, const F4& b, float t) {
    F4 out;
#pragma unroll
    for (int i = 0; i < 4; ++i) out.v[i] = a.v[i] + t * (b.v[i] - a.v[i]);
    return out;
}

// Where a sample falls along one side of a map: it is (1 − t)·map[lo] + t·map[hi].
struct Tap {
    int lo, hi;
    float t;
};

// Sample i where `len` pixels are resampled with ratio = len/samples (torch's interpolate,
// align_corners = false).
__device__ __forceinline__ Tap tap(int i, int len, float ratio) {
    const float at = fmaxf((i + 0.5f) * ratio - 0.5f, 0.0f);
    int lo = static_cast<int>(at);
    lo = lo < len - 1 ? lo : len - 1;
    return {lo, lo < len - 1 ? lo + 1 : lo, at - lo};
}

__device__ __forceinline__ float ratio(int len, int samples) {
    return static_cast<float>(len) / static_cast<float>(samples);
}

// The bilinear sample of a map at (v, h); `map` points at a lane's channels of the first pixel.
template <class T>
__device__ __forceinline__ F4 sample(const T* map, int width, const Tap& v, const Tap& h) {
    const T* top = map + v.lo * width * D;
    const T* bottom = map + v.hi * width * D;
    const F4 above = lerp(load(top + h.lo * D), load(top + h.hi * D), h.t);
    const F4 below = lerp(load(bottom + h.lo * D), load(bottom + h.hi * D), h.t);
    return lerp(above, below, v.t);
}

// The window of F that a crop takes, and whether it is mirrored. side = 0: the whole of F, as it
// is.
struct Window {
    int top, left, side;
    bool flip;
};

// The window of an image; crops (n) may be null.
__device__ __forceinline__ Window window_of(const Crop* crops, int image, int h, int w) {
    if (crops == nullptr) return {0, 0, 0, false};
    const Crop crop = crops[image];
    // NOTE: a window that is not inside of the map is the caller's mistake; it must not become a
    // wild read.
    const int top = static_cast<int>(crop.top < static_cast<unsigned>(h) ? crop.top : h - 1);
    const int left = static_cast<int>(crop.left < static_cast<unsigned>(w) ? crop.left : w - 1);
    const int room = h - top < w - left ? h - top : w - left;
    const int side = crop.side <= static_cast<unsigned>(room) ? static_cast<int>(crop.side) : room;
    const bool whole = h == w && top == 0 && left == 0 && side == h && crop.flip == 0;
    return {top, left, whole ? 0 : side, crop.flip != 0};
}

// The most laterals.
constexpr int LEVELS = 4;

// What every kernel of the head reads, passed by value. o3 (n, h3, w3, D) = p3 + up(p4 + up(p5))
// where the merge is a cascade, else null; p: p2 (n, h, w, D), p3 … as many as there are `levels`;
// crops (n) may be null. Without `unit` F̂ is F.
struct Laterals {
    Maybe<const float> o3;
    const act* p[LEVELS];
    Maybe<const Crop> crops;
    int h, w, levels;
    bool unit;
};

// The maps of one image; each pointer points at a lane's channels of the first pixel.
struct Maps {
    const float* o3;
    const act *p2, *p3, *p4, *p5;
    int h, w, levels;
    bool unit;
    Window window;

    template <class T>
    __device__ __forceinline__ F4 up(const T* map, int rows, int width, int y, int x) const {
        return sample(map, width, tap(y, rows, ratio(rows, h)), tap(x, width, ratio(width, w)));
    }

    // F before the warp.
    __device__ __forceinline__ F4 merged(int y, int x) const {
        F4 f = load(p2 + (y * w + x) * D);
        const int h3 = (h + 1) / 2, w3 = (w + 1) / 2;
        if (o3 != nullptr) {
            add(f, up(o3, h3, w3, y, x));
        } else {
            const int h4 = (h3 + 1) / 2, w4 = (w3 + 1) / 2;
            if (levels > 1) add(f, up(p3, h3, w3, y, x));
            if (levels > 2) add(f, up(p4, h4, w4, y, x));
            if (levels > 3) add(f, up(p5, (h4 + 1) / 2, (w4 + 1) / 2, y, x));
        }
        return f;
    }

    __device__ __forceinline__ F4 feature(int y, int x) const {
        if (window.side == 0) return merged(y, x);
        const Tap v = tap(y, window.side, ratio(window.side, h));
        const Tap u = tap(window.flip ? w - 1 - x : x, window.side, ratio(window.side, w));
        F4 row[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int at = window.top + (i == 0 ? v.lo : v.hi);
            row[i] = lerp(merged(at, window.left + u.lo), merged(at, window.left + u.hi), u.t);
        }
        return lerp(row[0], row[1], v.t);
    }
};

__device__ __forceinline__ Maps maps_of(int image, const Laterals& in) {
    const int h3 = (in.h + 1) / 2, w3 = (in.w + 1) / 2, h4 = (h3 + 1) / 2, w4 = (w3 + 1) / 2;
    const int h5 = (h4 + 1) / 2, w5 = (w4 + 1) / 2, lane = 4 * (threadIdx.x % WARP);
    const size_t i = image;
    return {in.o3 == nullptr ? nullptr : in.o3 + i * h3 * w3 * D + lane,
            in.p[0] + i * in.h * in.w * D + lane,
            in.p[1] + i * h3 * w3 * D + lane,
            in.p[2] + i * h4 * w4 * D + lane,
            in.p[3] + i * h5 * w5 * D + lane,
            in.h,
            in.w,
            in.levels,
            in.unit,
            window_of(in.crops, image, in.h, in.w)};
}

// 1/max(‖f‖, ε) of the pixel that a warp has, 1 without `unit`. NOTE: not fmaxf, which would turn a
// NaN norm into ε.
__device__ __forceinline__ float inverse_norm(const F4& f, bool unit) {
    if (!unit) return 1.0f;
    const float norm = sqrtf(warp_sum(dot(f, f)));
    return 1.0f / (norm < EPS ? EPS : norm);
}

}  // namespace PICIE_SUFFIX(head)
