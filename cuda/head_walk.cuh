// The first stage of the head's kernels: how features are made of lateral maps, where activations
// are f32 or f16, and by head_features. Where they are bf16 the others have head_merge.cuh.
//
//   merged = fine + Σ up(coarse),  F = merged resampled in a window, or merged itself
//
// Half a warp walks along a row of pixels, a lane has 8 of a pixel's channels. All maps are
// interpolated down the rows first, then along the row: each keeps the two columns that the walk is
// between, and a column is loaded once for all pixels that it reaches. Columns of a warped image
// are columns of its merged map.
//
// Of 80×80 maps of 16 bits and 4 levels a pixel takes 125 instructions of a warp and asks L1 for
// 1.0 KB; of a warped image 190 and 1.7 KB. Instructions bind: 128 images fill in 0.11 and 0.17 ms
// on 132 multiprocessors of 1.755 GHz, where their bytes take 0.09 ms at 3 TB/s.
#pragma once
#include "head.cuh"

inline namespace PICIE_SUFFIX(head) {

// Lanes that have a pixel: each has channels 4·lane to 4·lane + 3, and those APART from them.
constexpr int LANES = WARP / 2;
constexpr int APART = D / 2;
// Pixels that half a warp walks along.
constexpr int WALK = MINE / 2;
// A column that no walk comes to.
constexpr float NEVER = 1e30f;

static_assert(D == 8 * LANES && APART == 4 * LANES, "a lane has eight channels of a pixel");
static_assert(WALK == STRIDE && WALK * 2 == MINE, "half warps share a warp's pixels evenly");

__device__ __forceinline__ int walking_lane() { return threadIdx.x % LANES; }

// y += a·x.
__device__ __forceinline__ void add_scaled(F8& y, float a, const F8& x) {
#pragma unroll
    for (int i = 0; i < 8; ++i) y.v[i] += a * x.v[i];
}

// Four numbers as f32.
template <class T>
__device__ __forceinline__ void widen(float* out, const Four<T>& four) {
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] = to_float(four.v[i]);
}
// Both halves of a word are upper halves of an f32: one instruction each.
__device__ __forceinline__ void widen(float* out, const Four<__nv_bfloat16>& four) {
    unsigned words[2];
    memcpy(words, &four, sizeof words);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        out[2 * i] = __uint_as_float(words[i] << 16);
        out[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}

// A lane's channels of a pixel as they lie in memory.
template <class T>
struct Raw {
    Four<T> near, far;

    __device__ __forceinline__ void fetch(const T* p) {
        near = *reinterpret_cast<const Four<T>*>(p);
        far = *reinterpret_cast<const Four<T>*>(p + APART);
    }
    __device__ __forceinline__ F8 value() const {
        F8 out;
        widen(out.v, near);
        widen(out.v + 4, far);
        return out;
    }
};

// Rows of a map, each with a weight (a single row has none), which make one row of another; read
// from left to right.
template <class T, int N>
struct Rows {
    const T* first;   // the first pixel of the first row, at a lane's channels
    int start[N];     // where rows begin, counted from the first
    float weight[N];  // of rows but the first, which has the rest of 1
    int next;         // where the next column begins

    // The next column; then goes on, but not behind column `last`.
    __device__ __forceinline__ void fetch(Raw<T> (&raw)[N], int last) {
        raw[0].fetch(first + next);
#pragma unroll
        for (int i = 1; i < N; ++i) raw[i].fetch(first + (next + start[i]));
        next = next + D < last * D ? next + D : last * D;
    }
    __device__ __forceinline__ F8 value(const Raw<T> (&raw)[N]) const {
        F8 sum = raw[0].value();
        if constexpr (N > 1) {
            float rest = 1.0f;
#pragma unroll
            for (int i = 1; i < N; ++i) rest -= weight[i];
#pragma unroll
            for (int i = 0; i < 8; ++i) sum.v[i] *= rest;
#pragma unroll
            for (int i = 1; i < N; ++i) add_scaled(sum, weight[i], raw[i].value());
        }
        return sum;
    }
    __device__ __forceinline__ F8 column(int last) {
        Raw<T> raw[N];
        fetch(raw, last);
        return value(raw);
    }

    // Row v of a map itself, from column x on: the upper row, or both.
    __device__ __forceinline__ void take(const T* map, const Tap& v, int width, int x) {
        first = map + v.lo * width * D;
        next = x * D;
        if constexpr (N == 2) {
            start[1] = (v.hi - v.lo) * width * D;
            weight[1] = v.t;
        }
    }
    // Row v of a map of `rows` rows that is resampled with `ratio`, from its column x on.
    __device__ __forceinline__ void take_resampled(const T* map, const Tap& v, int rows, int width,
                                                   float ratio, int x) {
        const Tap a = tap(v.lo, rows, ratio);
        first = map + a.lo * width * D;
        next = x * D;
        start[1] = (a.hi - a.lo) * width * D;
        weight[1] = a.t;
        if constexpr (N == 3) {
            // Rows v.lo and v.hi are neighbours, and so are their taps: the same two, or one on.
            const Tap b = tap(v.hi, rows, ratio);
            const bool same = a.lo == b.lo;
            const float above = v.t * (1.0f - b.t), below = v.t * b.t;
            start[2] = (b.hi - a.lo) * width * D;
            weight[1] = (1.0f - v.t) * a.t + (same ? below : above);
            weight[2] = same ? 0.0f : below;
        }
    }
};

// x as a value of its own. NOTE: the compiler delays a plain copy, and then has to copy what takes
// the place of x as well; adding −0 changes nothing and costs as much as a copy.
__device__ __forceinline__ F8 set_aside(const F8& x) {
#ifdef __CUDA_ARCH__
    F8 out;
#pragma unroll
    for (int i = 0; i < 8; ++i)
        asm volatile("add.f32 %0, %1, 0f80000000;" : "=f"(out.v[i]) : "f"(x.v[i]));
    return out;
#else
    return x;
#endif
}

// The two columns of a source that a walk is between. The walk goes to the right, a column a step
// at most.
template <class Source>
struct Columns {
    Source source;
    F8 low, high;
    float past;   // how far the walk is past `high`, −1 to 0
    float right;  // where `high` is

    // A source that is not there: it gives zeros.
    __device__ __forceinline__ void vanish() {
#pragma unroll
        for (int i = 0; i < 8; ++i) low.v[i] = high.v[i] = 0.0f;
        right = NEVER;
    }
    // The walk begins to the right of column `left`, where the source has begun; `last` as there.
    __device__ __forceinline__ void begin(int left, int last) {
        right = static_cast<float>(left + 1);
        low = source.column(last);
        high = source.column(last);
    }
    __device__ __forceinline__ void go(float place, int last) {
        past = place - right;
        if (past >= 0.0f) {
            low = set_aside(high);
            high = source.column(last);
            past -= 1.0f;
            right += 1.0f;
        }
    }
    // f += the sample where the walk is.
    __device__ __forceinline__ void add_to(F8& f) const {
        add_scaled(f, -past, low);
        add_scaled(f, 1.0f + past, high);
    }
};

// The laterals of an image from level FINE on, and COUNT coarser ones that are added to it, as many
// as there are; or o3 in the place of p3.
template <class Type, int FINE, int COUNT>
struct Stack {
    using T = Type;
    static constexpr int LEVELS = COUNT;
    const Laterals& in;
    int image;

    __device__ __forceinline__ int height(int l) const { return halved(in.h, FINE + l); }
    __device__ __forceinline__ int width(int l) const { return halved(in.w, FINE + l); }
    __device__ __forceinline__ float down(int l) const { return in.down[FINE + l]; }
    __device__ __forceinline__ float along(int l) const { return in.along[FINE + l]; }
    __device__ __forceinline__ bool has(int l) const { return FINE + l < in.levels; }
    // A lane's channels of level l, counted from the fine map.
    template <class U>
    __device__ __forceinline__ const U* map(const U* maps, int l) const {
        return maps + static_cast<size_t>(image) * (height(l) * width(l) * D) + 4 * walking_lane();
    }
    __device__ __forceinline__ const act* fine() const { return map(in.p[FINE], 0); }
    __device__ __forceinline__ const T* coarse(int l) const {
        if constexpr (FINE == 0 && COUNT == 1) {
            return map(in.o3, l);
        } else {
            return map(in.p[FINE + l], l);
        }
    }
};
using Direct = Stack<act, 0, LEVELS - 1>;
using Cascaded = Stack<float, 0, 1>;
using Upper = Stack<act, LEVELS - 2, 1>;

// A row of a merged map, made of ROWS rows of the fine map, read from left to right.
template <class Levels, int ROWS>
struct Merge {
    Levels maps;
    Rows<act, ROWS> fine;
    Columns<Rows<typename Levels::T, ROWS + 1>> coarse[Levels::LEVELS];

    // Row v, from column x on.
    __device__ __forceinline__ void begin(const Tap& v, int x) {
        fine.take(maps.fine(), v, maps.width(0), x);
#pragma unroll
        for (int l = 1; l <= Levels::LEVELS; ++l) {
            auto& columns = coarse[l - 1];
            if (maps.has(l)) {
                const int width = maps.width(l), left = tap(x, width, maps.along(l)).lo;
                columns.source.take_resampled(maps.coarse(l), v, maps.height(l), width,
                                              maps.down(l), left);
                columns.begin(left, width - 1);
            } else {
                columns.vanish();
            }
        }
    }
    // The column at `centre`, of which the fine map is loaded.
    __device__ __forceinline__ F8 sum(const Raw<act> (&raw)[ROWS], float centre) {
#pragma unroll
        for (int l = 1; l <= Levels::LEVELS; ++l)
            coarse[l - 1].go(place(centre, maps.along(l)), maps.width(l) - 1);
        F8 f = fine.value(raw);
#pragma unroll
        for (int l = 1; l <= Levels::LEVELS; ++l) coarse[l - 1].add_to(f);
        return f;
    }
    __device__ __forceinline__ F8 column(int last) {
        const float centre = fine.next * (1.0f / D) + 0.5f;
        Raw<act> raw[ROWS];
        fine.fetch(raw, last);
        return sum(raw, centre);
    }
};

// The merged map as it is. The fine map is loaded a pixel ahead.
template <class Levels>
struct Plain {
    Merge<Levels, 1> merge;
    Raw<act> ahead[1];
    float centre;  // of the next pixel

    __device__ __forceinline__ void fetch() { merge.fine.fetch(ahead, merge.maps.width(0) - 1); }
    __device__ __forceinline__ void begin(int y, int x) {
        merge.begin({y, y, 0.0f}, x);
        centre = x + 0.5f;
        fetch();
    }
    __device__ __forceinline__ F8 next() {
        const Raw<act> raw[1] = {ahead[0]};
        fetch();
        const F8 f = merge.sum(raw, centre);
        centre += 1.0f;
        return f;
    }
};

// Where a window of a map lies, and the size to which it is resampled.
struct Frame {
    int top, left, rows, columns, h, w;
};

// A window of the merged map, resampled.
template <class Levels>
struct Warped {
    Columns<Merge<Levels, 2>> window;
    Frame frame;
    float along, centre;  // of the next pixel

    __device__ __forceinline__ void begin(int y, int x) {
        Tap v = tap(y, frame.rows, ratio(frame.rows, frame.h));
        v.lo += frame.top;
        v.hi += frame.top;
        along = ratio(frame.columns, frame.w);
        centre = x + 0.5f;
        const int left = tap(x, frame.columns, along).lo;
        window.source.begin(v, frame.left + left);
        window.begin(left, frame.left + frame.columns - 1);
    }
    __device__ __forceinline__ F8 next() {
        window.go(place(centre, along), frame.left + frame.columns - 1);
        centre += 1.0f;
        F8 f = {{0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f}};
        window.add_to(f);
        return f;
    }
};

// Calls each(row of the tile, F) for the pixels of a tile that this half warp has, of which the map
// has the column; behind its last row F is that row's. Rows are walked to the left if `flip`: then
// column x of a mirrored row is where column w − 1 − x was.
template <class Path, class Each>
__device__ __forceinline__ void walk(Path& path, const Spot& spot, bool flip, Each each) {
    const int line = threadIdx.x / LANES, y = spot.y + line;
    const int columns = smaller(spot.w - spot.x, STRIDE);
    path.begin(smaller(y, spot.h - 1), flip ? spot.w - spot.x - columns : spot.x);
    int row = line * WALK + (flip ? columns - 1 : 0);
#pragma unroll 1
    for (int i = 0; i < columns; ++i) {
        F8 f = path.next();
        each(row, f);
        row += flip ? -1 : 1;
    }
}

}  // namespace PICIE_SUFFIX(head)
