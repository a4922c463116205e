// From the gradient of F down to the laterals: the adjoints of the warp and of the merge, in one
// pass over the gradient.
//
//   dp2 = warpᵀ·dwarped (where an image is warped),  dp_l = up_lᵀ·dp2
//
// Both resample rows and columns apart. So a block has 32 channels of an image and goes down its
// rows once: they come by asynchronous copies, a thread sums the samples of a row that weigh its
// pixel (4, 8 and 16 of them for dp3, dp4 and dp5, 2 or 3 for dp2), and adds that to the two rows
// of pixels that the row lies between. It has one pixel of a coarse row, and one of dp2's where
// that is computed. All sums are in a fixed order.
//
// At 256×80×80 in bf16, half of the images warped: 0.42 GB in, 0.35 GB out, 0.26 ms at 3 TB/s. The
// same time goes to 260 million warp instructions at 4 a cycle, of which two thirds convert samples
// and multiply them by weights; two blocks run on a multiprocessor, of 96 registers a thread.
#include "head.cuh"
#include "mma.cuh"

inline namespace PICIE_SUFFIX(head) {

// Channels of a block; threads that share those of a pixel.
constexpr int SLICE = 32, SLICES = D / SLICE, SHARERS = SLICE / VECTOR;
// Columns of the map that a block reads, and those that it writes where a map has more.
constexpr int COLUMNS = 80, STRIP = 40;
constexpr int ADJOINT = COLUMNS * SHARERS;
// Values of a row; rows in shared memory that are on their way or in use.
constexpr int LINE = COLUMNS * SLICE, AHEAD = 6;
// Rows in shared memory: those, and two of F's gradient where it is computed.
constexpr int LINES = AHEAD + 2;
// The most pairs of samples of a pixel of a coarse map.
constexpr int PAIRS = 9;
// Rows that are summed at once where all are given.
constexpr int ROWS = 2;

static_assert(SLICES * SLICE == D && SHARERS * VECTOR == SLICE, "slices and their threads fit");
static_assert(2 * PAIRS > 2 << (LEVELS - 1), "a pixel's samples lie within one pixel of it");
static_assert(AHEAD % ROWS == 0 && AHEAD >= 2 * ROWS, "rows that are summed follow on each other");
static_assert((LINES * LINE + 2 * PAIRS * COLUMNS) * sizeof(float) <= MOST_SHARED,
              "lines of the widest type and weights fit");
static_assert(STRIP % (1 << (LEVELS - 1)) == 0 && COLUMNS % STRIP == 0,
              "strips have whole pixels of all maps");

// Columns of a map.
struct Span {
    int begin, end;

    __device__ __forceinline__ bool has(int x) const { return x >= begin && x < end; }
    __device__ __forceinline__ int count() const { return end > begin ? end - begin : 0; }
};

__device__ __forceinline__ int larger(int a, int b) { return a > b ? a : b; }
__device__ __forceinline__ Span common(const Span& a, const Span& b) {
    return {larger(a.begin, b.begin), smaller(a.end, b.end)};
}
__device__ __forceinline__ Span hull(const Span& a, const Span& b) {
    return {smaller(a.begin, b.begin), larger(a.end, b.end)};
}

// The weights of samples in a pixel of a side of `len` pixels that were resampled to as many
// samples or more: 1 less their distance in pixels, and 1 beyond the first and the last pixel.
struct Hat {
    float step, from, most;

    // Of the sample whose middle is i.
    __device__ __forceinline__ float weight(float i) const {
        return fminf(fmaxf(most - fabsf(i * step - 0.5f + from), 0.0f), 1.0f);
    }
};

__device__ __forceinline__ Hat hat(int pixel, int len, int samples) {
    const bool first = pixel == 0, last = pixel == len - 1;
    return {ratio(len, samples), static_cast<float>(first - last - pixel),
            first || last ? 2.0f : 1.0f};
}

// The samples that weigh one of the pixels.
__device__ __forceinline__ Span samples_of(const Span& pixels, int len, int samples) {
    const float over = ratio(samples, len);
    int begin = larger(static_cast<int>(floorf((pixels.begin - 0.5f) * over - 0.5f)), 0);
    int end = smaller(static_cast<int>(ceilf((pixels.end + 0.5f) * over - 0.5f)) + 1, samples);
    const Hat first = hat(pixels.begin, len, samples), last = hat(pixels.end - 1, len, samples);
    while (begin < end && first.weight(begin + 0.5f) == 0.0f) ++begin;
    while (begin < end && last.weight(end - 0.5f) == 0.0f) --end;
    return {begin, end};
}

// Which of a line's samples weigh a thread's pixel.
//
// NOTE: eight threads read 16 bytes each at once, of two pixels' samples, which are an even number
// of columns apart. So every other pixel takes its samples in pairs the other way round: their
// reads fall on different banks.
struct Taps {
    // The first sample, from the line's begin on; whether the second of each pair comes first.
    int first, count, odd;

    __device__ __forceinline__ Taps(int first, int count)
        : first(first), count(count), odd((first + threadIdx.x / SHARERS) % 2) {}

    // sum[n] += Σ of the samples of the n-th line from `lines` on; next() gives the weights of the
    // next two, as they are taken, of which the last may not exist.
    template <int N, class Weights>
    __device__ __forceinline__ void gather(F8 (&sum)[N], const act* lines, Weights next) const {
        const auto add = [&](const act* at, float weight) {
#pragma unroll
            for (int n = 0; n < N; ++n) {
                const F8 x = load8(at + n * LINE);
#pragma unroll
                for (int k = 0; k < VECTOR; ++k) sum[n].v[k] += weight * x.v[k];
            }
        };
        const act* one = lines + (first + odd) * SLICE + threadIdx.x % SHARERS * VECTOR;
        const act* other = odd ? one - SLICE : one + SLICE;
        int left = count;
#pragma unroll 1
        for (; left > 1; left -= 2, one += 2 * SLICE, other += 2 * SLICE) {
            const float2 weights = next();
            add(one, weights.x);
            add(other, weights.y);
        }
        if (left == 1) {
            const float2 weights = next();
            add(odd ? other : one, odd ? weights.y : weights.x);
        }
    }
};

// Where row i of samples falls, in pixels.
struct Fall {
    float step, last;

    __device__ __forceinline__ float operator()(float i) const {
        return fminf(fmaxf((i + 0.5f) * step - 0.5f, 0.0f), last);
    }
};

// The sums of a row of pixels, and of the one below it, as rows of samples come.
struct TwoRows {
    F8 upper, lower;

    // Adds a row that lies t below the upper one.
    __device__ __forceinline__ void add(float t, const F8& x) {
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) upper.v[i] += (1.0f - t) * x.v[i];
        // NOTE: a weight of 0 must not pass NaN on.
        if (t == 0.0f) return;
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) lower.v[i] += t * x.v[i];
    }
    // The upper row, which is whole; goes down by one.
    __device__ __forceinline__ F8 take() {
        const F8 done = upper;
        upper = lower;
        lower = {};
        return done;
    }
};

// What a block reads: columns of each row of an image, N rows at once. WIDE: in chunks of COLUMNS.
// A thread copies its column of each chunk.
template <int N, bool WIDE>
struct Source {
    const act* at;
    act* ring;
    int w, rows, chunks, chunk, slot;
    bool exists, flip;

    __device__ __forceinline__ Source(const act* image, act* ring, const Span& columns, int h,
                                      int w, bool flip)
        : ring(ring + threadIdx.x * VECTOR), w(w), rows(h), chunk(0), slot(0), flip(flip) {
        const int column = columns.begin + threadIdx.x / SHARERS;
        chunks = WIDE ? larger((columns.count() + COLUMNS - 1) / COLUMNS, 1) : 1;
        exists = column + (chunks - 1) * COLUMNS < columns.end;
        at = image + (exists || chunks > 1 ? (flip ? w - 1 - column : column) * D : 0);
        for (int i = 0; i < AHEAD - N; ++i) fetch(i);
    }
    __device__ __forceinline__ void fetch(int into) {
        const bool last = chunk + 1 == chunks, some = rows > 0 && (exists || !last);
#pragma unroll
        for (int i = 0; i < VECTOR; i += 16 / static_cast<int>(sizeof(act)))
            copy16(ring + into * LINE + i, at + i, some);
        commit();
        const int aside = last ? -chunk * COLUMNS : COLUMNS;
        if (WIDE) chunk = last ? 0 : chunk + 1;
        rows -= last;
        if (rows > 0) at += ((last ? w : 0) + (flip ? -aside : aside)) * D;
    }
    // The next N chunks, which follow on each other; 0 behind the last row. Those before must not
    // be read any more.
    __device__ __forceinline__ const act* next() {
        wait<AHEAD - 2 * N>();
        __syncthreads();
        const act* lines = ring - threadIdx.x * VECTOR + slot * LINE;
#pragma unroll
        for (int i = 0; i < N; ++i) fetch((slot >= N ? slot - N : slot + AHEAD - N) + i);
        slot = slot + N < AHEAD ? slot + N : 0;
        return lines;
    }
};

// The gradients of the laterals p2, …, of which p2's is given for images that are not warped;
// `warped`: that of the warp, for the others.
struct Gradients {
    act* p[LEVELS];
    const act* warped;
    int h, w, levels;
};

// What a thread sums: its pixel of each row of a coarse map, from rows of lines.
struct Coarse {
    bool exists;
    Taps taps;
    // (PAIRS, COLUMNS), of which this thread has a column.
    const float2* weights;
    Fall fall;
    float row;
    TwoRows rows;
    act* out;
    int pitch;

    template <int N>
    __device__ __forceinline__ void gather(F8 (&sum)[N], const act* lines) const {
        const float2* at = weights;
        taps.gather(sum, lines, [&] {
            const float2 pair = *at;
            at += COLUMNS;
            return pair;
        });
    }
    __device__ __forceinline__ void store() {
        store8(out, rows.take());
        out += pitch;
        row += 1.0f;
    }
    // Adds row y.
    __device__ __forceinline__ void add(int y, const F8& x) {
        const float at = fall(y);
        if (at - row >= 1.0f) store();
        rows.add(at - row, x);
    }
    __device__ __forceinline__ void finish() {
        while (row <= fall.last) store();
    }
};

// What a block works on.
struct Work {
    int image, channel, h, w;
    // Columns that it writes, and those that it needs.
    Span own, need;
};

// dp2 is given.
__device__ __forceinline__ void merged(const Work& work, Coarse& coarse, const act* dp2,
                                       act* lines) {
    Source<ROWS, false> source(dp2 + work.channel, lines, work.need, work.h, work.w, false);
#pragma unroll 1
    for (int y = 0; y < work.h; y += ROWS) {
        const act* pair = source.next();
        if (!coarse.exists) continue;
        F8 sum[ROWS] = {};
        coarse.gather(sum, pair);
#pragma unroll
        for (int i = 0; i < ROWS; ++i)
            if (y + i < work.h) coarse.add(y + i, sum[i]);
    }
}

// dp2 = the adjoint of its warp; 0 outside of the window.
template <bool WIDE>
__device__ __forceinline__ void warped(const Work& work, Coarse& coarse, act* dp2,
                                       const act* dwarped, act* lines, const Window& window) {
    const int h = work.h, w = work.w, x = work.need.begin + threadIdx.x / SHARERS,
              pixel = x - window.left;
    const Span inside =
        common({work.need.begin - window.left, work.need.end - window.left}, {0, window.side});
    Span columns = {0, 0}, samples = {0, 0};
    if (inside.count() > 0) columns = samples_of(inside, window.side, w);
    if (inside.has(pixel)) samples = samples_of({pixel, pixel + 1}, window.side, w);
    Source<1, WIDE> source(dwarped + work.channel, lines, columns, h, w, window.flip);
    const Hat weights = hat(pixel, window.side, w);
    const Fall fall = {ratio(window.side, h), window.side - 1.0f};
    TwoRows rows = {};
    int next = 0;
#pragma unroll 1
    for (int y = 0; y < h; ++y) {
        const int row = y - window.top;
        const bool some = row >= 0 && row < window.side;
        F8 df = {}, sum[1] = {};
        if (some) {
#pragma unroll 1
            for (; next < h; ++next) {
                const float t = fall(next) - row;
                if (t >= 1.0f) break;
                F8 sum[1] = {};
                int begin = columns.begin;
#pragma unroll 1
                for (int i = 0; i < source.chunks; ++i, begin += COLUMNS) {
                    const act* line = source.next();
                    const Span here = WIDE ? common(samples, {begin, begin + COLUMNS}) : samples;
                    const Taps taps(here.begin - begin, here.end - here.begin);
                    float one = here.begin + taps.odd + 0.5f,
                          other = here.begin + 1 - taps.odd + 0.5f;
                    taps.gather(sum, line, [&] {
                        const float2 pair = {weights.weight(one), weights.weight(other)};
                        one += 2.0f;
                        other += 2.0f;
                        return pair;
                    });
                }
                rows.add(t, sum[0]);
            }
            df = rows.take();
        }
        if (work.own.has(x)) store8(dp2 + (y * w + x) * D + work.channel, df);
        if (some) {
            // NOTE: two by turns, so that nobody reads a line any more when it is written.
            act* const to = lines + (AHEAD + y % 2) * LINE;
            store8(to + threadIdx.x * VECTOR, df);
            __syncthreads();
            if (coarse.exists) coarse.gather(sum, to);
        }
        if (coarse.exists) coarse.add(y, sum[0]);
    }
}

}  // namespace PICIE_SUFFIX(head)

// dp3, … (n, ⌈h/2⌉, ⌈w/2⌉, D), each half as large, = the adjoints of up-sampling to (h, w), from
// dp2 (n, h, w, D), which for images that are warped is = the adjoint of their warp. Grid (strips·
// SLICES, n), where a strip is the whole width up to COLUMNS, else STRIP columns; dynamic shared
// memory: LINES·LINE activations and 2·PAIRS·COLUMNS floats.
KERNEL(head_adjoint, ADJOINT, 2)(const Gradients gradients, Maybe<const Crop> crops) {
    DYNAMIC_SHARED(float2, weights);
    const int h = gradients.h, w = gradients.w, levels = gradients.levels,
              strip = blockIdx.x / SLICES, column = threadIdx.x / SHARERS,
              wide = w <= COLUMNS ? COLUMNS : STRIP;
    const Span own = {strip * wide, smaller((strip + 1) * wide, w)};
    Work work = {static_cast<int>(blockIdx.y),
                 static_cast<int>(blockIdx.x % SLICES * SLICE + threadIdx.x % SHARERS * VECTOR),
                 h,
                 w,
                 own,
                 own};
    // The pixel of this thread, which is behind those of the threads before, the coarsest first.
    int level = 0, pixel = 0, before = 0;
    act* out = nullptr;
#pragma unroll
    for (int l = LEVELS - 1; l > 0; --l) {
        if (l >= levels) continue;
        const Span pixels = {own.begin >> l, smaller((strip + 1) * wide >> l, halved(w, l))};
        work.need = hull(work.need, samples_of(pixels, halved(w, l), w));
        if (column >= before && column < before + pixels.count()) {
            level = l;
            pixel = pixels.begin + column - before;
            out = gradients.p[l];
        }
        before += pixels.count();
    }
    const int rows = halved(h, level), width = halved(w, level);
    const Span samples = samples_of({pixel, pixel + 1}, width, w);
    const Taps taps(samples.begin - work.need.begin, samples.count());
    const Hat of = hat(pixel, width, w);
    if (level > 0) {
        out += (static_cast<size_t>(work.image) * rows * width + pixel) * D + work.channel;
        for (int i = threadIdx.x % SHARERS; 2 * i < taps.count; i += SHARERS) {
            const float middle = samples.begin + 2 * i + 0.5f;
            weights[i * COLUMNS + column] =
                make_float2(of.weight(middle + taps.odd), of.weight(middle + 1 - taps.odd));
        }
    }
    Coarse coarse = {level > 0, taps, weights + column, {ratio(rows, h), rows - 1.0f}, 0.0f,
                     {},        out,  width * D};

    act* const lines = reinterpret_cast<act*>(weights + PAIRS * COLUMNS);
    const size_t first = static_cast<size_t>(work.image) * h * w * D;
    act* const dp2 = gradients.p[0] + first;
    const Window window = window_of(crops, work.image, h, w);
    if (window.side > 0 && w <= COLUMNS) {
        warped<false>(work, coarse, dp2, gradients.warped + first, lines, window);
    } else if (window.side > 0) {
        warped<true>(work, coarse, dp2, gradients.warped + first, lines, window);
    } else {
        merged(work, coarse, dp2, lines);
    }
    if (coarse.exists) coarse.finish();
    wait<0>();
}
