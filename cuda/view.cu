// Views: stored images as the network reads them, with colours, geometry and normalisation.
//
//   images[index] (sh, sw, 3) u8 → photometric steps → sums over rows, then over columns →
//   (x − MEAN)/STD → x (n, h, w, 4 or 8) act
//
// Blur and resampling are linear, so an output is one weighted sum along each axis: its triangle
// (as wide as the scale where the whole image shrinks, else two pixels wide) convolved with the
// Gaussian.
//
//   view_grey    first, only for images whose contrast changes (view_grey.cu).
//   view_render  a block makes a strip of at most STRIP columns and CHUNK rows of outputs. A thread
//                has a source column and walks down its rows, TRIO at a time: colours are computed
//                in registers, and each goes at once to the sums of all outputs that read its row,
//                which are at most SLOTS, in registers too, with weights that all threads read from
//                one table. Where an output's last row is past, its sums go to a line in shared
//                memory; after LINES lines a thread has a column of outputs, and sums over columns.
//                Nothing but x is written, no scratch holds an image, and a source row is coloured
//                again only in the strip or chunk beside its own, for a blur's reach.
//
// Any scale and any σ works. Rows that more than SLOTS outputs read, as a strong blur's or an
// enlarged image's, are walked through in several passes, each of which takes every so manieth
// output; windows wider than COLS in pieces; more than MOST taps along a row are not kept but
// weighed anew at each use. All that is slow: recipes blur with σ ≤ 2, 16 taps.
//
// A view that later passes of the epoch read again is kept in 8 bits as well; view_load reads it.
//
// Bytes: the window's u8 once (what strips share comes from L2) and 8·h·w written at 16 bits. For
// 128 images of 640², 320² and PiCIE's two views: 197 and 262 MB, 66 and 87 µs at 3 TB/s. By a
// count, not a measurement, instructions bound it. A warp's 32 source pixels take 21 to be loaded
// and turned into numbers, 7 for brightness and for contrast, 10 for saturation, 30 for the hue,
// 13, 23 or 33 to be added to 3, 6 or 9 sums, and 15 on the way of sums to the lines; 32 outputs
// then take 50, and 7 a tap. With four in five of the steps that is 210 and 260 µs of an H100's
// four instructions a cycle, while shared memory is busy for 170: 300 and 355 µs are predicted.
// Fewer bytes would not help, but rendering a view once for all three passes of an epoch does: to
// keep it takes 3·h·w bytes, and 19 instructions more for 32 outputs.
#include "view_colour.cuh"
#include "view_taps.cuh"

// The longest side of a stored image: two tables of a blur's weights lie in dynamic shared memory.
constexpr int LONGEST = 4096;
// Outputs of a block at most: columns of a strip, and rows.
constexpr int STRIP = 108;
constexpr int CHUNK = 80;
// Source columns of a window, one for each thread.
constexpr int COLS = THREADS;
// Where odd columns begin in a line. A line has its even and its odd columns apart: at scale 2
// lanes read columns two apart, and so neighbours.
constexpr int ODD = COLS / 2 + WARP / 2;
constexpr int LINE = 2 * ODD;
// Rows of outputs whose sums over rows are in shared memory, where a window is wider than COLS, and
// how many of them a thread has at a time.
constexpr int LINES = 8;
constexpr int LINES_FAR = 4;
constexpr int SHARE = 4;
// Taps along a row whose weights are kept.
constexpr int MOST = 16;
// Source rows that a thread takes at once.
constexpr int TRIO = 3;
// Outputs along a column that a thread sums at once, and their weights in a row of the table.
constexpr int SLOTS = 9;
constexpr int PITCH = 12;
// Source rows of the table of weights.
constexpr int BAND = 96;

static_assert(STRIP <= THREADS / 2, "a row of outputs is of half a block");
static_assert(STRIP + CHUNK <= THREADS, "a thread has at most one reach");
static_assert(LINES_FAR <= LINES && LINES <= 2 * SHARE, "two halves of a block have all rows");
static_assert(BAND >= TRIO, "the table has the rows that are taken at once");
static_assert(SLOTS <= PITCH && PITCH % 4 == 0, "a row of the table is of 128-bit words");
static_assert(LINES_FAR * 3 <= MOST, "partial sums fit into the weights");
static_assert((LINES * 3 * LINE + MOST * STRIP + BAND * PITCH + 2 * (LONGEST + 1)) * 4 +
                      (STRIP + CHUNK) * 32 + 256 <=
                  MOST_SHARED,
              "lines, weights, the blur's tables, reaches and steps fit");

// Adds the colours of TRIO rows to the sums of the first N slots, by rows of the table.
template <int N>
__device__ __forceinline__ void add_trio(Colour (&sum)[SLOTS], const Colour (&c)[TRIO],
                                         const float* row) {
#pragma unroll
    for (int i = 0; i < TRIO; ++i) {
        float share[(N + 3) / 4 * 4];
#pragma unroll
        for (int j = 0; j < N; j += 4) {
            const float4 four = *reinterpret_cast<const float4*>(row + i * PITCH + j);
            share[j] = four.x, share[j + 1] = four.y, share[j + 2] = four.z, share[j + 3] = four.w;
        }
#pragma unroll
        for (int j = 0; j < N; ++j) {
            sum[j].r += share[j] * c[i].r;
            sum[j].g += share[j] * c[i].g;
            sum[j].b += share[j] * c[i].b;
        }
    }
}

// Moves the sum of a slot to a line, and makes it zero.
template <int FIRST, int END>
__device__ __forceinline__ void take(Colour (&sum)[SLOTS], int slot, float* line) {
    if constexpr (END - FIRST == 1) {
        line[0] = sum[FIRST].r;
        line[LINE] = sum[FIRST].g;
        line[2 * LINE] = sum[FIRST].b;
        sum[FIRST] = {};
    } else {
        constexpr int MIDDLE = (FIRST + END) / 2;
        if (slot < MIDDLE)
            take<FIRST, MIDDLE>(sum, slot, line);
        else
            take<MIDDLE, END>(sum, slot, line);
    }
}

// The place of a column in a line.
__device__ __forceinline__ int place(int x) { return (x & 1) * ODD + (x >> 1); }

// Stores the three bytes of a lane's pixel at `to`: lanes 0, 1 and 2 of each four store a word of
// their twelve bytes. All lanes of a warp call it; those not `inside` have no pixel.
__device__ __forceinline__ void store_rgb(unsigned char* to, unsigned rgb, bool inside) {
    const unsigned next = __shfl_down_sync(ALL_LANES, rgb, 1), q = threadIdx.x % 4;
    if (inside && q < 3)
        __stwb(reinterpret_cast<unsigned*>(to + q), rgb >> 8 * q | next << (24 - 8 * q));
}

// What the threads of a block of view_render share of their way through its window. NOTE: read from
// shared memory where it is used, since registers are short.
struct Way {
    // Where the block's outputs begin in x, and in `kept`.
    size_t start, kept;
    const unsigned char* image;
    // Source columns left..right, and how many times COLS they are.
    int left, right, pieces;
    // How many outputs of a column TRIO source rows touch at most; passes, each of which takes
    // every so manieth row of outputs; and the slots that are in use, a multiple of 3.
    int touched, passes, slots;
    int radius;
    // Rows of outputs whose sums over rows wait in shared memory.
    int batch;
};

// x (n, h, w, channels) = views of images[index] (n), channels from 3 on zero. Without `photo` (n)
// colours stay, without `crops` (n) the whole image is resized; `partial` from view_grey is read
// where contrast changes. kept[places] = the views in 8 bits, if given: w and strip are then
// multiples of 4. A block has `strip` × `chunk` outputs. Blocks (⌈w/strip⌉, ⌈h/chunk⌉, n); dynamic
// shared memory: 2·(max(sh, sw) + 1) floats.
KERNEL(view_render, THREADS,
       4)(act* __restrict__ x, Maybe<unsigned char> __restrict__ kept,
          Maybe<const unsigned> __restrict__ places, const unsigned char* __restrict__ images,
          const unsigned* __restrict__ index, Maybe<const Photo> __restrict__ photo,
          Maybe<const Crop> __restrict__ crops, const float* __restrict__ partial, int sh, int sw,
          int h, int w, int channels, int strip, int chunk) {
    SHARED(float, lines, LINES * 3 * LINE);
    SHARED(float, weights, MOST * STRIP);
    SHARED(float, table, BAND * PITCH);
    SHARED(Reach, reaches, STRIP + CHUNK);
    SHARED(Steps, steps, 1);
    SHARED(Way, way, 1);
    DYNAMIC_SHARED(float, bell);
    const int image = blockIdx.z, t = threadIdx.x, lane = threadIdx.x % WARP;
    const int ox = blockIdx.x * strip, oy = blockIdx.y * chunk;
    const int wide = min(strip, w - ox), high = min(chunk, h - oy);

    // The steps of the draw, the blur's Gaussian and its tails.
    float sigma = 0;
    if (photo) {
        const Photo draw = photo[image];
        sigma = draw.sigma;
        if (threadIdx.x / WARP == WARPS - 1) {
            float mean = 0;
            if (draw.contrast != 1)
                mean = warp_sum(partial[image * PARTS + lane]) / (float(sh) * float(sw));
            if (lane == 0) list_steps(*steps, draw, &mean);
        }
    } else if (t == 0) {
        steps->kinds = 0;
    }
    if (t == 0) {
        const size_t start = size_t(oy) * w + ox, view = size_t(h) * w;
        way->start = (image * view + start) * channels;
        if (kept) way->kept = (places[image] * view + start) * 3;
        way->image = images + size_t(index[image]) * sh * sw * 3;
        way->touched = 0;
    }
    const int longest = max(sh, sw);
    const int radius = sigma > 0 ? int(fminf(ceilf(3 * sigma), float(longest))) : 0;
    float* const tail = bell + longest + 1;
    if (t == 0) way->radius = radius;
    for (int i = t; i <= radius; i += THREADS) {
        const float d = i / sigma;
        bell[i] = i == 0 ? 1 : expf(-0.5f * d * d);
    }
    __syncthreads();
    for (int i = t; i <= radius; i += THREADS) {
        float sum = 0;
        for (int j = radius; j >= i; --j) sum += bell[j];
        tail[i] = sum;
    }
    __syncthreads();

    const auto blur = [=] { return Blur{bell, tail, way->radius}; };

    // Reaches of the block's columns, then of its rows.
    {
        Axis axis = t < STRIP ? Axis{sw, w, 0, sw, true, false} : Axis{sh, h, 0, sh, true, false};
        if (crops) {
            const Crop crop = crops[image];
            axis.start = static_cast<int>(t < STRIP ? crop.left : crop.top);
            axis.side = static_cast<int>(crop.side);
            axis.antialias = false;
            axis.flip = t < STRIP && crop.flip != 0;
        }
        if (t < STRIP ? t < wide : t - STRIP < high)
            reaches[t] = reach_of(axis, t < STRIP ? ox + t : oy + t - STRIP, blur());
    }
    __syncthreads();

    // The weights of columns, and how many outputs TRIO source rows touch.
    const Reach* const below = reaches + STRIP;
    for (int i = t; i < MOST * STRIP; i += THREADS) {
        const Reach& col = reaches[i % STRIP];
        const int at = col.from + i / STRIP;
        if (i % STRIP < wide && at < col.to) weights[i] = weight(col, at, sw, blur());
    }
    if (t < high) {
        int end = t + 1;
        while (end < high && below[end].from < below[t].to + TRIO - 1) ++end;
        atomicMax(&way->touched, end - t);
    }
    __syncthreads();
    if (t == 0) {
        way->left = min(reaches[0].from, reaches[wide - 1].from);
        way->right = max(reaches[0].to, reaches[wide - 1].to);
        way->pieces = (way->right - way->left + COLS - 1) / COLS;
        way->batch = way->pieces > 1 ? LINES_FAR : LINES;
        way->passes = (way->touched + SLOTS - 1) / SLOTS;
        way->slots = way->touched <= 3 ? 3 : way->touched <= 6 ? 6 : SLOTS;
    }
    __syncthreads();
    const unsigned pitch = 3 * sw;

    for (int pass = 0; pass < way->passes; ++pass) {
        // Rows of outputs pass, pass + passes, …
        const int count = (high - pass + way->passes - 1) / way->passes;
        Colour sum[SLOTS];
        int y = 0, slot = 0, band = 0;
        for (int first = 0; first < count; first += way->batch) {
            const int last = min(first + way->batch, count);
            for (int piece = 0; piece < way->pieces; ++piece) {
                const int passes = way->passes, slots = way->slots;
                const Reach* row = below + pass + first * passes;
                if (first == 0 || way->pieces > 1) {
#pragma unroll
                    for (int j = 0; j < SLOTS; ++j) sum[j] = {};
                    slot = first % slots;
                    y = row->from;
                    band = -BAND;
                }
                // Sums over rows: a thread has a source column.
                const int own = way->left + piece * COLS + t;
                const bool idle = own - lane >= way->right;
                const unsigned char* const column = way->image + 3 * min(own, way->right - 1);
                float* line = lines + place(t);
                int end = row->to;
                for (int done = first;;) {
                    if (end <= y) {
                        if (!idle) take<0, SLOTS>(sum, slot, line);
                        if (++slot == slots) slot = 0;
                        if (++done == last) break;
                        line += 3 * LINE;
                        row += passes;
                        end = row->to;
                        continue;
                    }
                    if (y + TRIO > band + BAND) {
                        band = y;
                        __syncthreads();
                        for (int i = t; i < BAND * PITCH; i += THREADS) table[i] = 0;
                        __syncthreads();
                        for (int k = done + int(threadIdx.x % (2 * WARP)); k < count;
                             k += 2 * WARP) {
                            const Reach row = below[pass + k * passes];
                            const int end = min(row.to, band + BAND);
                            for (int at = max(row.from, band) + int(threadIdx.x / (2 * WARP));
                                 at < end; at += THREADS / (2 * WARP))
                                table[(at - band) * PITCH + k % slots] =
                                    weight(row, at, sh, blur());
                        }
                        __syncthreads();
                    }
                    if (!idle) {
                        Colour colours[TRIO];
#pragma unroll
                        for (int i = 0; i < TRIO; ++i) {
                            const unsigned at = i == 0 ? y : min(y + i, sh - 1);
                            colours[i] = colour(column + size_t(at) * pitch);
                        }
                        develop(colours, *steps);
                        const float* const shares = table + (y - band) * PITCH;
                        if (slots == 3)
                            add_trio<3>(sum, colours, shares);
                        else if (slots == 6)
                            add_trio<6>(sum, colours, shares);
                        else
                            add_trio<SLOTS>(sum, colours, shares);
                    }
                    y += TRIO;
                }
                __syncthreads();

                // Sums over columns: a thread has a column of outputs and SHARE of its rows. Lanes
                // beyond the last column do as it does, and store nothing.
                const int mine = threadIdx.x % (THREADS / 2), c = min(mine, wide - 1);
                const int i = int(threadIdx.x / (THREADS / 2)) * SHARE;
                if (mine / WARP * WARP < wide && i < last - first) {
                    const int x0 = way->left + piece * COLS;
                    const Reach col = reaches[c];
                    float* const so_far = weights + i * 3 * STRIP + c;
                    float out[SHARE][3] = {};
                    if (piece > 0) {
#pragma unroll
                        for (int v = 0; v < SHARE * 3; ++v) out[v / 3][v % 3] = so_far[v * STRIP];
                    }
                    const auto add = [&](float share, const float* at) {
#pragma unroll
                        for (int v = 0; v < SHARE * 3; ++v)
                            out[v / 3][v % 3] += share * at[v * LINE];
                    };
                    const float* const from = lines + i * 3 * LINE;
                    int at = max(col.from, x0);
                    const int end = min(col.to, x0 + COLS);
                    if (way->pieces == 1 && col.to - col.from <= MOST) {
                        const float* share = weights + (at - col.from) * STRIP + c;
                        const float *even = from + place(at - x0), *odd = from + place(at + 1 - x0);
                        for (; at + 1 < end; at += 2, ++even, ++odd, share += 2 * STRIP) {
                            add(share[0], even);
                            add(share[STRIP], odd);
                        }
                        if (at < end) add(share[0], even);
                    } else {
                        for (; at < end; ++at)
                            add(weight(col, at, sw, blur()), from + place(at - x0));
                    }
                    if (piece + 1 < way->pieces) {
#pragma unroll
                        for (int v = 0; v < SHARE * 3; ++v)
                            if (mine == c) so_far[v * STRIP] = out[v / 3][v % 3];
                    } else {
                        unsigned to = (pass + (first + i) * way->passes) * w + c;
#pragma unroll
                        for (int j = 0; j < SHARE; ++j, to += way->passes * w) {
                            if (i + j >= last - first) break;
                            const Pixel pixel = pixel_of(out[j]);
                            if (mine == c)
                                store_pixel(x + way->start + to * channels, pixel, channels);
                            if (kept) store_rgb(kept + way->kept + 3 * to, pixel.rgb, mine == c);
                        }
                    }
                }
                __syncthreads();
            }
        }
    }
}
