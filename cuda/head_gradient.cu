// From the gradient of F down to the laterals: the adjoints of the warp and of the merge.
#include "head.cuh"
#include "mma.cuh"

// Channels of a block; threads that share those of a pixel.
constexpr int SLICE = 32, SLICES = D / SLICE, SHARERS = SLICE / VECTOR;
// Columns of the map that a block reads, and those that it writes where a map has more.
constexpr int COLUMNS = 80, STRIP = 40;
constexpr int ADJOINT = COLUMNS * SHARERS;
// Values of a row; rows in shared memory that are on their way or in use.
constexpr int LINE = COLUMNS * SLICE, AHEAD = 7;
// Rows in shared memory: those, and two of F's gradient where it is computed.
constexpr int LINES = AHEAD + 2;

// Columns of a map.
struct Span {
    int begin, end;

    __device__ __forceinline__ bool has(int x) const { return x >= begin && x < end; }
    __device__ __forceinline__ int count() const { return end > begin ? end - begin : 0; }
};

__device__ __forceinline__ int smaller(int a, int b) { return a < b ? a : b; }
__device__ __forceinline__ int larger(int a, int b) { return a > b ? a : b; }
__device__ __forceinline__ Span both(const Span& a, const Span& b) {
    return {larger(a.begin, b.begin), smaller(a.end, b.end)};
}
__device__ __forceinline__ float saturated(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }
__device__ __forceinline__ int halved(int side, int level) {
    return (side + (1 << level) - 1) >> level;
}

// The weights of samples in a pixel of a side of `len` pixels that were resampled to `samples`, as
// many or more: 1 − |their distance|, and 1 beyond the first and the last pixel.
struct Hat {
    float step, from, most;

    // Of the sample whose middle is i.
    __device__ __forceinline__ float weight(float i) const {
        return saturated(most - fabsf(i * step - 0.5f + from));
    }
};

__device__ __forceinline__ Hat hat_of(int pixel, int len, int samples) {
    const bool first = pixel == 0, last = pixel == len - 1;
    return {ratio(len, samples), static_cast<float>(first - last - pixel),
            first || last ? 2.0f : 1.0f};
}

// The samples that weigh one of the pixels.
__device__ __forceinline__ Span samples_of(const Span& pixels, int len, int samples) {
    const float over = ratio(samples, len);
    int begin = larger(static_cast<int>(floorf((pixels.begin - 0.5f) * over - 0.5f)), 0);
    int end = smaller(static_cast<int>(ceilf((pixels.end + 0.5f) * over - 0.5f)) + 1, samples);
    const Hat first = hat_of(pixels.begin, len, samples), last = hat_of(pixels.end - 1, len, samples);
    while (begin < end && first.weight(begin + 0.5f) == 0.0f) ++begin;
    while (begin < end && last.weight(end - 0.5f) == 0.0f) --end;
    return {begin, end};
}

// Where a thread finds the samples of its pixel in lines of which a thread has a column: their
// weights, and which of them they are.
struct alignas(16) Taps {
    Hat hat;
    Span samples;

    // sum[k] += Σ of the samples by their weights, of line k; the lines begin with sample `first`.
    //
    // NOTE: eight threads read 16 bytes each at once, of two pixels' samples, which are an even
    // number of columns apart. So every other pixel takes its samples in pairs the other way round:
    // their reads fall on different banks.
    template <int N>
    __device__ __forceinline__ void gather(F8 (&sum)[N], const act* const (&lines)[N],
                                           int begin) const {
        const int skipped = larger(begin - samples.begin, 0), first = samples.begin + skipped - begin;
        int left = smaller(samples.end, begin + COLUMNS) - samples.begin - skipped;
        const int odd = (first + threadIdx.x / SHARERS) % 2, turn = odd ? -SLICE : SLICE;
        int at = (first + odd) * SLICE + threadIdx.x % SHARERS * VECTOR;
        float i = samples.begin + skipped + odd + 0.5f, other = i + 1 - 2 * odd;
        const auto add = [&](int from, float middle) {
            const float weight = hat.weight(middle);
#pragma unroll
            for (int n = 0; n < N; ++n) {
                const F8 x = load8(lines[n] + from);
#pragma unroll
                for (int k = 0; k < VECTOR; ++k) sum[n].v[k] += weight * x.v[k];
            }
        };
#pragma unroll 1
        for (; left > 1; left -= 2, i += 2.0f, other += 2.0f, at += 2 * SLICE) {
            add(at, i);
            add(at + turn, other);
        }
        if (left == 1) add(odd ? at + turn : at, odd ? other : i);
    }
};

// Where row i of samples falls, in pixels.
struct Fall {
    float step, last;

    __device__ __forceinline__ float operator()(float i) const {
        return fminf(fmaxf((i + 0.5f) * step - 0.5f, 0.0f), last);
    }
};

// Sums of two rows of pixels, `row` and the one below, as the rows of samples come.
struct Rows {
    float row;
    F8 upper, lower;

    __device__ __forceinline__ void add(float t, const F8& x) {
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) upper.v[i] += (1.0f - t) * x.v[i];
        if (t == 0.0f) return;
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) lower.v[i] += t * x.v[i];
    }
    __device__ __forceinline__ F8 take() {
        const F8 done = upper;
        upper = lower;
        lower = {};
        row += 1.0f;
        return done;
    }
};

struct Gradients {
    act* p[LEVELS];
    const act* warped;
    int h, w, levels;
};

// What a block reads: columns of each row of an image, in chunks where they are more than COLUMNS.
// A thread copies its column of the chunk.
template <int N>
struct Source {
    const act* at;
    act* ring;
    int w, rows, chunks, chunk, slot;
    bool exists, flip;

    __device__ __forceinline__ Source(const act* image, act* ring, const Span& columns, int chunks,
                                      int h, int w, bool flip)
        : ring(ring + threadIdx.x * VECTOR), w(w), rows(h), chunks(chunks), chunk(0), slot(0), flip(flip) {
        const int column = columns.begin + threadIdx.x / SHARERS;
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
        chunk = last ? 0 : chunk + 1;
        rows -= last;
        if (rows > 0) at += ((last ? w : 0) + (flip ? -aside : aside)) * D;
    }
    // The next chunk of a row. The one before must not be read any more.
    __device__ __forceinline__ void next(const act* (&lines)[N]) {
        wait<AHEAD - 2 * N>();
        __syncthreads();
#pragma unroll
        for (int i = 0; i < N; ++i) {
            fetch(slot >= N ? slot - N : slot + AHEAD - N);
            lines[i] = ring - threadIdx.x * VECTOR + slot * LINE;
            slot = slot + 1 < AHEAD ? slot + 1 : 0;
        }
    }
};

// A thread's pixel in each row of a coarse map.
struct Coarse {
    Fall fall;
    Rows rows;
    act* out;
    int pitch;

    __device__ __forceinline__ void store() {
        store8(out, rows.take());
        out += pitch;
    }
    __device__ __forceinline__ void add(float y, const F8& x) {
        const float at = fall(y);
        if (at - rows.row >= 1.0f) store();
        rows.add(at - rows.row, x);
    }
    __device__ __forceinline__ void finish() {
        while (rows.row <= fall.last) store();
    }
};

KERNEL(head_adjoint, ADJOINT)(const Gradients gradients, Maybe<const Crop> crops) {
    DYNAMIC_SHARED(act, lines);
    const Gradients& g = gradients;
    const int strip = blockIdx.x / SLICES, column = threadIdx.x / SHARERS, image = blockIdx.y,
              channel = blockIdx.x % SLICES * SLICE + threadIdx.x % SHARERS * VECTOR,
              h = g.h, w = g.w, step = w <= COLUMNS ? COLUMNS : STRIP;
    // The thread's pixel in each row of one of the coarse maps.
    int level = 0, pixel = 0, taken = 0;
    act* out = nullptr;
    const Span own = {strip * step, smaller((strip + 1) * step, w)};
    Span need = own;
#pragma unroll
    for (int l = LEVELS - 1; l > 0; --l) {
        if (l >= g.levels) continue;
        const Span pixels = {strip * step >> l, smaller((strip + 1) * step >> l, halved(w, l))};
        const Span samples = samples_of(pixels, halved(w, l), w);
        need = {smaller(need.begin, samples.begin), larger(need.end, samples.end)};
        if (column >= taken && column < taken + pixels.count()) {
            level = l;
            pixel = pixels.begin + column - taken;
            out = g.p[l];
        }
        taken += pixels.count();
    }
    const int rows = halved(h, level), width = halved(w, level);
    SHARED(Taps, tapped, COLUMNS);
    tapped[column] = {hat_of(pixel, width, w), samples_of({pixel, pixel + 1}, width, w)};
    Coarse coarse = {{ratio(rows, h), rows - 1.0f}, {}, out + (static_cast<size_t>(image) * rows * width + pixel) * D + channel, width * D};

    const Window window = window_of(crops, image, h, w);
    const size_t first = static_cast<size_t>(image) * h * w * D + channel;
    if (window.side == 0) {
        Source<2> source(g.p[0] + first, lines, need, 1, h, w, false);
#pragma unroll 1
        for (int y = 0; y < h; y += 2) {
            const act* line[2];
            source.next(line);
            if (level > 0) {
                F8 sum[2] = {};
                Taps(tapped[column]).gather(sum, line, need.begin);
                coarse.add(y, sum[0]);
                if (y + 1 < h) coarse.add(y + 1, sum[1]);
            }
        }
    } else {
        const Span inside = both({need.begin - window.left, need.end - window.left}, {0, window.side});
        const int mine = need.begin + column - window.left;
        Span columns = {0, 0};
        Taps taps = {hat_of(mine, window.side, w), {0, 0}};
        if (inside.count() > 0) columns = samples_of(inside, window.side, w);
        if (inside.has(mine)) taps.samples = samples_of({mine, mine + 1}, window.side, w);
        const int chunks = larger((columns.count() + COLUMNS - 1) / COLUMNS, 1);
        Source<1> source(g.warped + first, lines, columns, chunks, h, w, window.flip);
        const Fall fall = {ratio(window.side, h), window.side - 1.0f};
        act* const dp2 = g.p[0] + static_cast<size_t>(image) * h * w * D;
        const int pixel0 = (need.begin + column) * D + channel;
        const bool writes = own.has(need.begin + column);
        Rows df = {};
        int next = 0;
#pragma unroll 1
        for (int y = 0; y < h; ++y) {
            const bool some = y >= window.top && y < window.top + window.side;
            F8 x = {};
            if (some) {
#pragma unroll 1
                for (; next < h; ++next) {
                    const float t = fall(next) - (y - window.top);
                    if (t >= 1.0f) break;
                    F8 sum[1] = {};
#pragma unroll 1
                    for (int i = 0; i < source.chunks; ++i) {
                        const act* from[1];
                        source.next(from);
                        taps.gather(sum, from, columns.begin + i * COLUMNS);
                    }
                    df.add(t, sum[0]);
                }
                x = df.take();
            }
            if (writes) store8(dp2 + y * w * D + pixel0, x);
            F8 sum[1] = {};
            if (some) {
                act* const to = lines + (AHEAD + y % 2) * LINE;
                store8(to + threadIdx.x * VECTOR, x);
                __syncthreads();
                const act* line[1] = {to};
                if (level > 0) Taps(tapped[column]).gather(sum, line, need.begin);
            }
            if (level > 0) coarse.add(y, sum[0]);
        }
    }
    if (level > 0) coarse.finish();
    wait<0>();
}
