// How much each pixel of a map counts in a pixel of F, by rows and by columns apart: what
// head_merge.cuh multiplies with, as head_taps computes it. Of bf16 alone; other types are compiled,
// and not launched.
#pragma once
#include "head_walk.cuh"

inline namespace PICIE_SUFFIX(head) {

// The most steps of a level for two rows of F: six of its rows weigh, two a step or four.
constexpr int STEPS = 3;
// The most pixels of a side of a map that weigh a pixel of F: of the third of three resamplings,
// after a warp, four.
constexpr int REACH = 5;

// The columns of a level that weigh one of eight columns of F: where in a row the first begins, and
// the last of all, in activations; how many are multiplied, 8, or 16 of level 0, of which nine may
// weigh; whether their weights are multiples of 1/16.
struct alignas(16) TapColumns {
    int offset, last, count, exact;
};
// Their weights, by column of F; 0 behind the last. Of level 0 twice eight, in two places.
struct StripTaps {
    TapColumns level[LEVELS];
    float weights[LEVELS + 1][STRIDE][STRIDE];
};
// Likewise the rows that weigh one of two rows of F: where the first begins, and the last of all;
// activations of a row; whether weights are multiples of 1/16; steps of two rows, or of four where
// the level is narrow.
struct alignas(16) TapRows {
    int offset, last, pitch, steps, exact, none[3];
};
// The weights of a step for lanes whose t / 2 is 0, and for others: of the upper row of F and the
// lower one, then those of the step's second half. `area`: activations of a map.
struct PairTaps {
    TapRows level[LEVELS];
    int area[LEVELS];
    float weights[LEVELS][STEPS][2][4];
};
constexpr int STRIP_WORDS = 4 * LEVELS + (LEVELS + 1) * STRIDE * STRIDE;
constexpr int PAIR_WORDS = 9 * LEVELS + 8 * LEVELS * STEPS;

static_assert(sizeof(StripTaps) == STRIP_WORDS * 4 && sizeof(PairTaps) == PAIR_WORDS * 4,
              "no padding");

// The taps of an image: of each eight columns, then of each two rows.
struct Taps {
    StripTaps* strips;
    PairTaps* pairs;
};

__device__ __forceinline__ Taps taps_of(float* taps, const Laterals& in, int image) {
    const int strips = (in.w + STRIDE - 1) / STRIDE, pairs = (in.h + 1) / 2;
    const int words = strips * STRIP_WORDS + pairs * PAIR_WORDS;
    // Without crops all images have the same.
    taps += in.crops == nullptr ? 0 : static_cast<size_t>(image) * words;
    return {reinterpret_cast<StripTaps*>(taps),
            reinterpret_cast<PairTaps*>(taps + strips * STRIP_WORDS)};
}

// The pixels of a side from `first` on that weigh a pixel of F, and how much.
struct Band {
    int first;
    float weights[REACH];

    __device__ __forceinline__ void clear(int from) {
        first = from;
#pragma unroll
        for (int i = 0; i < REACH; ++i) weights[i] = 0.0f;
    }
    __device__ __forceinline__ float at(int pixel) const {
        float found = 0.0f;
#pragma unroll
        for (int i = 0; i < REACH; ++i) found = pixel - first == i ? weights[i] : found;
        return found;
    }
    __device__ __forceinline__ void add(const Tap& tap, float weight) {
#pragma unroll
        for (int i = 0; i < REACH; ++i) {
            weights[i] += tap.lo - first == i ? weight * (1.0f - tap.t) : 0.0f;
            weights[i] += tap.hi - first == i ? weight * tap.t : 0.0f;
        }
    }
    // One behind the last that weighs anything.
    __device__ __forceinline__ int end() const {
        int last = first + 1;
#pragma unroll
        for (int i = 1; i < REACH; ++i) last = weights[i] != 0.0f ? first + i + 1 : last;
        return last;
    }
    __device__ __forceinline__ bool exact() const {
        bool whole = true;
#pragma unroll
        for (int i = 0; i < REACH; ++i)
            whole = whole && truncf(16.0f * weights[i]) == 16.0f * weights[i];
        return whole;
    }
    // The pixels of a coarser side of `len` pixels that weigh these; `ratio` as in tap.
    __device__ __forceinline__ Band coarser(int len, float ratio) const {
        Band coarse;
        coarse.clear(tap(first, len, ratio).lo);
#pragma unroll
        for (int i = 0; i < REACH; ++i) coarse.add(tap(first + i, len, ratio), weights[i]);
        return coarse;
    }
};

// Those of the finest map in pixel i of F, of `len` pixels a side; `from`, `side` and `flip` of the
// window along it.
__device__ __forceinline__ Band finest(int i, int len, int from, int side, bool flip) {
    Band band;
    if (side == 0) {
        band.clear(i);
        band.weights[0] = 1.0f;
    } else {
        const Tap at = tap(flip ? len - 1 - i : i, side, ratio(side, len));
        band.clear(from + at.lo);
        band.add({from + at.lo, from + at.hi, at.t}, 1.0f);
    }
    return band;
}

// The smallest and the largest of N neighbours' x. All lanes must call it.
template <int N>
__device__ __forceinline__ int least_of(int x) {
#pragma unroll
    for (int step = 1; step < N; step *= 2) {
        const int other = __shfl_xor_sync(ALL_LANES, x, step);
        x = other < x ? other : x;
    }
    return x;
}

// Calls take(level, band, first, count, exact) of each level, where N neighbours have a pixel of F
// each, which `band` of the finest map weighs: the first pixel that weighs one of theirs, how many
// do, and whether all weights are exact. ratio(level) is that of tap.
template <int N, class Ratio, class Take>
__device__ __forceinline__ void each_level(const Laterals& in, Band band, int side, bool cascade,
                                           Ratio ratio, Take take) {
    const Band fine = band;
#pragma unroll
    for (int l = 0; l < LEVELS; ++l) {
        if (l >= in.levels) break;
        if (!cascade) band = fine;
        if (l > 0) band = band.coarser(halved(side, l), ratio(l));
        const int first = least_of<N>(band.first), end = -least_of<N>(-band.end());
        take(l, band, first, end - first, least_of<N>(band.exact()) > 0);
    }
}

}  // namespace PICIE_SUFFIX(head)
