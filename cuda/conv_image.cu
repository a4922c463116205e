// The first convolution of a ResNet, which reads images: 7×7, stride 2, padding 3, 4 → 64 channels,
// of 16-bit types. With 4 channels most of a tile of cuDNN's engines is empty; these kernels are
// written for them.
//
//   conv_image         y (n, p, q, 64) = relu?(x ∗ weights + bias)
//   conv_image_weight  partial[block] = its share of Σ dy·x over all pixels; conv_sum of conv.cu
//                      adds them up
//
// Products of tensor cores, whose depth or columns are 7 rows of 8 taps of 4 channels. The eighth
// tap stands before the seven and weighs 0, so that a pixel's window begins at an even column of x:
// 16 bytes of shared memory, and 16 bytes behind that of the pixel before. So the windows of pixels
// side by side are a matrix as they lie there, whose rows overlap: nothing is unfolded, and
// load_matrix reads 8 rows from 128 bytes in a row. Lines of x come by asynchronous copies, each
// once for a strip of y that a block goes down.
//
// Forward, a warp has one of two rows of y at once and half of the kernels, whose weights it keeps
// in registers, 112 of a thread: 16×16 values of x are one load for four products. Columns of
// products are dealt to kernels so that a lane ends with eight channels of a pixel, one store.
//
// Backward, the depth is 16 pixels, rows are kernels, and a warp has two of the eight taps: its sums
// are 112 registers of a thread, over all pixels that the block sees.
//
// At 256×320×320: x is 0.21 GB, y 0.84 GB, 0.24 ms at 4.3 TB/s either way. The products, an eighth
// of which are with 0, are 45.9 million mma, 0.32 ms at 1.6 cycles each on 132 multiprocessors.
#include "mma.cuh"

constexpr int THREADS = 128;
// Channels of y, and those of a warp: octets of columns of its products.
constexpr int KERNELS = 64, SHARE = 32, OCTETS = SHARE / 8;
constexpr int SIDE = 7, PAD = 3, CHANNELS = 4;
// Columns of x from one window to the next.
constexpr int STRIDE = 2;
// Taps of a row of products, the first of which is none.
constexpr int TAPS = 8;
// Pixels of a product, and products along a row of taps.
constexpr int TILE = 16, HALVES = TAPS * CHANNELS / TILE;
// Of y: columns of a block, rows of a block, rows at once.
constexpr int COLUMNS = 160, STRIP = 28, ROWS = 2;
// Of x: words of a pixel, and pixels of a line; lines in shared memory, of which AHEAD are needed
// by the rows at once, and NEXT are new in the next.
constexpr int WORDS = CHANNELS / 2;
constexpr int LINE = STRIDE * COLUMNS + TAPS - STRIDE;
constexpr int LINES = 16, AHEAD = STRIDE * (ROWS - 1) + SIDE, NEXT = STRIDE * ROWS;
// Pixels of a copy.
constexpr int PAIR = 2;
// As COLUMNS and LINE, of conv_image_weight.
constexpr int BAND = 80, BAND_LINE = STRIDE * BAND + TAPS - STRIDE;
// Tiles of kernels.
constexpr int ROWS_OF_TILES = KERNELS / TILE;

static_assert(KERNELS / SHARE * ROWS * WARP == THREADS, "a warp has a row and a share of kernels");
static_assert(OCTETS * 2 == VECTOR, "a lane has the channels of one store");
static_assert(LINES >= AHEAD + NEXT && (LINES & (LINES - 1)) == 0,
              "lines in use are not copied to");
static_assert(LINES * LINE * WORDS * 4 <= PLAIN_SHARED, "the lines fit");
static_assert(LINES * BAND_LINE * WORDS * 4 + 2 * BAND * KERNELS * 2 <= PLAIN_SHARED,
              "lines and two rows of dy fit");
static_assert(COLUMNS % TILE == 0 && LINE % PAIR == 0, "tiles and copies are whole");
static_assert(BAND % TILE == 0 && BAND_LINE % PAIR == 0, "tiles and copies are whole");
static_assert(THREADS / WARP * 2 == TAPS, "a warp has two taps");
static_assert(THREADS / (KERNELS / VECTOR) == TILE, "a block copies a tile of dy at once");
static_assert(SIDE + 1 == TAPS && (PAD + 1) % PAIR == 0, "windows begin at even columns");

inline namespace PICIE_SUFFIX(images) {

// Copies `pairs` pairs of pixels of a row of an image from column `first` on, by a warp: zeros
// where there are none.
__device__ __forceinline__ void copy_line(unsigned* line, const act* image, int row, int first,
                                          int pairs, int height, int width) {
    const bool some = row >= 0 && row < height;
    const act* const source = image + (some ? row : 0) * width * CHANNELS;
    for (int i = threadIdx.x % WARP; i < pairs; i += WARP) {
        const int column = first + PAIR * i;
        const bool exists = some && column >= 0 && column < width;
        copy16(line + i * PAIR * WORDS, source + (exists ? column : 0) * CHANNELS, exists);
    }
}

// Pairs of pixels of x that these tiles of pixels of y read.
__device__ __forceinline__ int pairs_of(int tiles) {
    return (STRIDE * TILE * tiles + TAPS - STRIDE) / PAIR;
}

}  // namespace PICIE_SUFFIX(images)

// y (n, ⌈height/2⌉, width/2, KERNELS), x (n, height, width, CHANNELS) with an even width, weights
// (KERNELS, SIDE, SIDE, CHANNELS), bias (KERNELS). Blocks (⌈q/COLUMNS⌉, ⌈p/STRIP⌉, n). NOTE: 16-bit
// types alone; f32 is compiled, and not launched.
KERNEL(conv_image, THREADS, 3)
(act* __restrict__ y, const act* __restrict__ x, const act* __restrict__ weights,
 Maybe<const act> __restrict__ bias, int height, int width, bool relu) {
    SHARED(unsigned, lines, LINES * LINE * WORDS);
    const int p = (height + 1) / STRIDE, q = width / STRIDE;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, t = lane % 4;
    const int left = blockIdx.x * COLUMNS, top = blockIdx.y * STRIP;
    const int columns = min(COLUMNS, q - left), bottom = min(top + STRIP, p);
    const int tiles = (columns + TILE - 1) / TILE;
    const int row = warp % ROWS, channel = warp / ROWS * SHARE + t * VECTOR;

    // Copies line i of the block, by a warp.
    const act* const image = x + size_t(blockIdx.z) * height * width * CHANNELS;
    const auto fetch = [&](int i) {
        copy_line(lines + i % LINES * LINE * WORDS, image, STRIDE * top - PAD + i,
                  STRIDE * left - PAD - 1, pairs_of(tiles), height, width);
    };
    for (int i = warp; i < AHEAD; i += THREADS / WARP) fetch(i);
    commit();

    // Column c of an octet o is channel 8·(c/2) + 2·o + c%2 of the warp's: d[2·h] and d[2·h + 1] of
    // a lane's octets are then 8·t, 8·t + 1, 8·t + 2, …
    unsigned factor[SIDE * HALVES][OCTETS][2];
    {
        const int kernel = warp / ROWS * SHARE + g / 2 * VECTOR + g % 2, tap = t / 2;
        const unsigned* const from =
            reinterpret_cast<const unsigned*>(weights) + kernel * SIDE * SIDE * WORDS + t % 2;
#pragma unroll
        for (int s = 0; s < SIDE * HALVES; ++s) {
#pragma unroll
            for (int o = 0; o < OCTETS; ++o) {
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const int at = tap + s % HALVES * (TAPS / HALVES) + 2 * i - 1;
                    const int kept = (2 * o * SIDE + s / HALVES) * SIDE;
                    factor[s][o][i] = at < 0 ? 0 : from[(kept + at) * WORDS];
                }
            }
        }
    }

    // Where this lane's row of a matrix begins: its pixel's window, or 8 values further.
    const int window = (lane % TILE * STRIDE + lane / TILE * 2) * WORDS;
    for (int first = top; first < bottom; first += ROWS) {
        const int begin = STRIDE * (first - top);
        wait<0>();
        __syncthreads();
        if (first + ROWS < bottom) fetch(begin + AHEAD + warp);
        commit();
        if (first + row >= bottom) continue;
        act* to = y + ((size_t(blockIdx.z) * p + first + row) * q + left + g) * KERNELS + channel;
        const unsigned* from = lines + window;
        for (int tile = 0; tile < tiles; ++tile, from += STRIDE * TILE * WORDS) {
            float sum[OCTETS][4] = {};
#pragma unroll
            for (int s = 0; s < SIDE * HALVES; ++s) {
                const int line = (begin + STRIDE * row + s / HALVES) % LINES;
                unsigned values[4];
                load_matrix<false>(values, from + line * LINE * WORDS + s % HALVES * (TILE / 2));
#pragma unroll
                for (int o = 0; o < OCTETS; ++o) mma_act(sum[o], values, factor[s][o]);
            }
            F8 b = {};
            if (bias) b = load8(bias + channel);
#pragma unroll
            for (int half = 0; half < 2; ++half, to += TILE / 2 * KERNELS) {
                F8 v;
#pragma unroll
                for (int i = 0; i < VECTOR; ++i) {
                    v.v[i] = sum[i / 2][2 * half + i % 2] + b.v[i];
                    if (relu) v.v[i] = max_nan(v.v[i], 0.0f);
                }
                if (tile * TILE + half * (TILE / 2) + g < columns) store8(to, v);
            }
        }
    }
    wait<0>();
}

// partial (gridDim.x, KERNELS, SIDE, SIDE, CHANNELS) = the shares of a block of the gradient of
// weights, from x (n, height, width, CHANNELS) with an even width and dy (n, ⌈height/2⌉, width/2,
// KERNELS). A block has every so manieth of n·⌈p/STRIP⌉·⌈q/BAND⌉ parts. NOTE: as conv_image.
KERNEL(conv_image_weight, THREADS, 3)
(float* __restrict__ partial, const act* __restrict__ x, const act* __restrict__ dy, int n,
 int height, int width) {
    constexpr int OCTET_WORDS = VECTOR / 2, PIXEL = KERNELS / 2;
    SHARED(unsigned, lines, LINES * BAND_LINE * WORDS);
    SHARED(unsigned, slopes, 2 * BAND * PIXEL);
    const int p = (height + 1) / STRIDE, q = width / STRIDE;
    const int across = (q + BAND - 1) / BAND, down = (p + STRIP - 1) / STRIP;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, t = lane % 4;
    // Where this lane's rows of matrices begin: of dy, whose octets lie in another order in each of
    // eight pixels, so that reads of a column fall on different banks; and of x.
    const int pixel = lane % 8 + lane / 16 * 8, octet = lane / 8 % 2;
    const int window = (lane % TILE * STRIDE + warp * 2) * WORDS;
    float sum[ROWS_OF_TILES][SIDE][4] = {};
    for (int part = blockIdx.x; part < n * across * down; part += gridDim.x) {
        const int left = part % across * BAND, top = part / across % down * STRIP;
        const int columns = min(BAND, q - left), bottom = min(top + STRIP, p);
        const int tiles = (columns + TILE - 1) / TILE;
        const size_t at = part / across / down;
        const act* const image = x + at * height * width * CHANNELS;
        const auto fetch = [&](int i) {
            copy_line(lines + i % LINES * BAND_LINE * WORDS, image, STRIDE * top - PAD + i,
                      STRIDE * left - PAD - 1, pairs_of(tiles), height, width);
        };
        const auto fetch_slopes = [&](int row) {
            const act* const from = dy + ((at * p + row) * q + left) * KERNELS;
            unsigned* const to = slopes + row % 2 * BAND * PIXEL;
            for (int tile = 0; tile < tiles; ++tile) {
                const int c = threadIdx.x % (KERNELS / VECTOR);
                const int i = tile * TILE + threadIdx.x / (KERNELS / VECTOR);
                const bool exists = i < columns;
                copy16(to + i * PIXEL + (c ^ i % 8) * OCTET_WORDS,
                       from + (exists ? i * KERNELS + c * VECTOR : 0), exists);
            }
        };
        // Of the part before, lines are read no more.
        __syncthreads();
        for (int i = warp; i < SIDE; i += THREADS / WARP) fetch(i);
        fetch_slopes(top);
        commit();
        for (int row = top; row < bottom; ++row) {
            const int begin = STRIDE * (row - top);
            wait<0>();
            __syncthreads();
            if (row + 1 < bottom) {
                if (warp < STRIDE) fetch(begin + SIDE + warp);
                fetch_slopes(row + 1);
            }
            commit();
            const unsigned* const rows = slopes + row % 2 * BAND * PIXEL + pixel * PIXEL;
            // Two rows of taps at once, of which the last has none beside it.
            const unsigned* taps[(SIDE + 1) / 2];
#pragma unroll
            for (int i = 0; i < (SIDE + 1) / 2; ++i) {
                const int line = min(2 * i + lane / TILE, SIDE - 1);
                taps[i] = lines + (begin + line) % LINES * BAND_LINE * WORDS + window;
            }
            for (int tile = 0; tile < tiles; ++tile) {
                unsigned a[ROWS_OF_TILES][4];
#pragma unroll
                for (int m = 0; m < ROWS_OF_TILES; ++m)
                    load_matrix<true>(a[m], rows + tile * TILE * PIXEL +
                                                ((2 * m + octet) ^ lane % 8) * OCTET_WORDS);
#pragma unroll
                for (int i = 0; i < SIDE; i += 2) {
                    unsigned values[4];
                    load_matrix<true>(values, taps[i / 2] + tile * TILE * STRIDE * WORDS);
                    const unsigned one[2] = {values[0], values[1]}, two[2] = {values[2], values[3]};
#pragma unroll
                    for (int m = 0; m < ROWS_OF_TILES; ++m) {
                        mma_act(sum[m][i], a[m], one);
                        if (i + 1 < SIDE) mma_act(sum[m][i + 1], a[m], two);
                    }
                }
            }
        }
    }
    wait<0>();
    const int tap = 2 * warp + t / 2 - 1;
    if (tap < 0) return;
    float* const to = partial + size_t(blockIdx.x) * KERNELS * SIDE * SIDE * CHANNELS +
                      (g * SIDE * SIDE + tap) * CHANNELS + t % 2 * 2;
#pragma unroll
    for (int m = 0; m < ROWS_OF_TILES; ++m) {
#pragma unroll
        for (int i = 0; i < SIDE; ++i) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int kernel = m * TILE + half * 8;
                *reinterpret_cast<float2*>(to + (kernel * SIDE + i) * SIDE * CHANNELS) =
                    make_float2(sum[m][i][2 * half], sum[m][i][2 * half + 1]);
            }
        }
    }
}
