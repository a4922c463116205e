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
// Pixels of a block: of a map, so many rows and columns.
constexpr int STRIDE = 8, TILE = STRIDE * STRIDE;
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
// Bytes between the rows of a tile of any type, and its numbers from row to row.
constexpr int GAP = 16;
template <class T>
constexpr auto PITCH = D + GAP / static_cast<int>(sizeof(T));
// Blocks that a multiprocessor holds of kernels that fill tiles and keep little else in registers.
// NOTE: not an int, which build.rs would want to know.
constexpr auto FILLERS = sizeof(act) == 2 ? 4 : 2;
// A norm below this counts as this constant.
constexpr float EPS = 1e-12f;

static_assert(D == 4 * WARP, "a lane has four channels of a pixel");
static_assert(MINE * WARPS == TILE && MINE == 16, "a warp's pixels are the rows of an mma");
static_assert(CHUNK == 32, "a chunk is four times the 8 columns of an mma");
static_assert(ROW % 4 == 0, "rows are written 16 bytes at a time");
static_assert(PITCH<float> == ROW, "a tile of features is one of f32");
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
    *reinterpret_cast<float4*>(p) = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
}

// y += a·x.
__device__ __forceinline__ void add_scaled(F4& y, float a, const F4& x) {
#pragma unroll
    for (int i = 0; i < 4; ++i) y.v[i] += a * x.v[i];
}

__device__ __forceinline__ float dot(const F4& a, const F4& b) {
    return a.v[0] * b.v[0] + a.v[1] * b.v[1] + a.v[2] * b.v[2] + a.v[3] * b.v[3];
}

// 1/√x of a normal number.
__device__ __forceinline__ float inverse_root(float x) {
#ifdef __CUDA_ARCH__
    float root;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(x));
    return root;
#else
    return 1.0f / sqrtf(x);
#endif
}

// Where a sample falls along one side of a map: it is (1 − t)·map[lo] + t·map[hi].
struct Tap {
    int lo, hi;
    float t;
};

// Where a sample falls when pixels are resampled with ratio = pixels/samples (torch's interpolate,
// align_corners = false); `centre` is that of the sample, i + ½.
__device__ __forceinline__ float place(float centre, float ratio) {
    return fmaxf(centre * ratio - 0.5f, 0.0f);
}

// Sample i where `len` pixels are resampled with ratio = len/samples.
__device__ __forceinline__ Tap tap(int i, int len, float ratio) {
    const float at = place(i + 0.5f, ratio);
    int lo = static_cast<int>(at);
    lo = lo < len - 1 ? lo : len - 1;
    return {lo, lo < len - 1 ? lo + 1 : lo, at - lo};
}

__device__ __forceinline__ float ratio(int len, int samples) {
    return static_cast<float>(len) / static_cast<float>(samples);
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

__device__ __forceinline__ int smaller(int a, int b) { return a < b ? a : b; }

// The length of a side after `level` halvings, each rounded up.
__device__ __forceinline__ int halved(int side, int level) {
    return (side + (1 << level) - 1) >> level;
}

// What every kernel of the head reads, passed by value. taps: those of head_taps.cuh, where
// features are products, else null; o3 (n, h3, w3, D) = p3 + up(p4 + up(p5)) where they are not and
// the merge is a cascade, else null; p: p2 (n, h, w, D), p3 … as many as there are `levels`; crops
// (n) may be null; down, along: the ratios of each level to the map that it is added to, in height
// and width; eight pixels of F need more than four columns of the first `wide` levels. Without
// `unit` F̂ is F.
struct Laterals {
    Maybe<const float> taps;
    Maybe<const float> o3;
    const act* p[LEVELS];
    Maybe<const Crop> crops;
    int h, w, levels, wide;
    float down[LEVELS], along[LEVELS];
    bool unit;
};

// Where a tile lies in a map of h·w pixels; its row r is the pixel in column r % STRIDE of its row
// r / STRIDE.
struct Spot {
    int x, y, h, w;

    __device__ __forceinline__ bool has(int row) const {
        return x + row % STRIDE < w && y + row / STRIDE < h;
    }
    // The pixel of the map.
    __device__ __forceinline__ int pixel(int row) const {
        return (y + row / STRIDE) * w + x + row % STRIDE;
    }
};

__device__ __forceinline__ int across(int side) { return (side + STRIDE - 1) / STRIDE; }

// Tiles follow on each other down a strip of STRIDE columns: what neighbours read is in L1.
__device__ __forceinline__ Spot spot_of(int tile, int h, int w) {
    const int strip = tile / across(h);
    return {strip * STRIDE, (tile - strip * across(h)) * STRIDE, h, w};
}

// The tiles that a block takes of so many.
struct Share {
    int begin, end;
};

__device__ __forceinline__ Share my_share(int tiles) {
    const int each = (tiles + gridDim.x - 1) / gridDim.x, begin = blockIdx.x * each;
    return {begin, smaller(begin + each, tiles)};
}

// The maps of one image.
struct Maps {
    const Laterals* in;
    int image;
    Window window;
};

__device__ __forceinline__ Maps maps_of(int image, const Laterals& in) {
    return {&in, image, window_of(in.crops, image, in.h, in.w)};
}

}  // namespace PICIE_SUFFIX(head)
