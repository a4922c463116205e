// The correlations of IIC's loss, for each lag and class of pairs: the first step of iic.cu, whose
// head says what they are and cost.
#include "iic.cuh"

// Image columns of a step; lags along a row of a block, one a warp.
constexpr int SEGMENT = 32, LAGS = 9;
constexpr int LAG_THREADS = LAGS * WARP;
// Pixels of both maps of a step, and those that a pass of the threads loads: a thread two classes.
constexpr int HELD = SEGMENT + SEGMENT + LAGS - 1, LOADED = LAG_THREADS / (TILE / 2);

static_assert(LAG_THREADS % (TILE / 2) == 0 && HELD % LOADED == 0, "threads load evenly");
static_assert(2 * HELD * 2 * PITCH * 4 <= PLAIN_SHARED, "two steps fit");
static_assert(SEGMENT % 16 == 0, "products are whole");

// The correlations of pairs of inner columns at `group` lags of columns from one on, one tile of
// (k, k). blockIdx.x counts lags of rows, groups, and tiles. blockIdx.y < 2 is a class of pairs of
// rows at a border, which goes to c (lags of rows, classes, lags of columns, classes, k, k); above,
// it is a chunk of `each` pairs of inner rows, which goes to part (chunks, lags of rows, lags of
// columns, k, k).
//
// A step is a pair of rows of an image and SEGMENT columns, which a block loads once for all lags:
// products over pixels, of which a lag's second factors begin so many pixels further. Inner columns
// are those of maps whose first and last column are zeros.
KERNEL(iic_lags, LAG_THREADS, 1)
(float* __restrict__ c, float* __restrict__ part, const float* __restrict__ maps, int n, int h,
 int w, int k, int ry, int rx, int each, int group) {
    SHARED(unsigned, room, 2 * 2 * HELD * PITCH);
    const int t = threadIdx.x, lane = t % WARP, warp = t / WARP;
    const int ly = 2 * ry + 1, lx = 2 * rx + 1, tiles = (k + TILE - 1) / TILE,
              groups = (lx + group - 1) / group;
    const int b0 = blockIdx.x % tiles * TILE, a0 = blockIdx.x / tiles % tiles * TILE,
              j0 = blockIdx.x / (tiles * tiles) % groups * group,
              jy = blockIdx.x / (tiles * tiles * groups);
    const int chunk = static_cast<int>(blockIdx.y) - 2,
              which = chunk >= 0 ? INNER : (blockIdx.y == 0 ? FIRST : LAST);
    const Pairs rows = pairs_of(h, ry - jy, which);
    const int all = n * rows.count, first = chunk >= 0 ? chunk * each : 0,
              last = chunk >= 0 ? min(all, first + each) : all;
    const int segments = (w + SEGMENT - 1) / SEGMENT, steps = (last - first) * segments;

    // Two classes of each of this thread's pixels: those of the first map, then of the second.
    const int of = t / (TILE / 2), pair = t % (TILE / 2);
    float2 raw[HELD / LOADED];
    const auto fetch = [&](int step) {
        const int line = first + step / segments, left = step % segments * SEGMENT;
        const int image = line / rows.count, row = line % rows.count;
#pragma unroll
        for (int i = 0; i < HELD / LOADED; ++i) {
            const int pixel = of + i * LOADED;
            const bool one = pixel < SEGMENT;
            const int column = one ? left + pixel : left - (rx - j0) + pixel - SEGMENT;
            const int from = one ? image * h + rows.p + row : (n + image) * h + rows.q + row;
            raw[i] = two_of(maps, from, column, w, k, (one ? a0 : b0) + 2 * pair);
        }
    };
    const auto keep = [&](int step) {
        unsigned* const to = room + step % 2 * 2 * HELD * PITCH + of * PITCH + pair;
#pragma unroll
        for (int i = 0; i < HELD / LOADED; ++i)
            keep_parts(to + i * LOADED * PITCH, HELD * PITCH, raw[i]);
    };

    // Tiles of 16 × 16 classes that exist.
    const int tall = (min(k - a0, TILE) + 15) / 16, wide = (min(k - b0, TILE) + 15) / 16;
    float sum[TILE / 16][TILE / 8][4] = {};
    if (steps > 0) {
        fetch(0);
        keep(0);
    }
    for (int step = 0; step < steps; ++step) {
        __syncthreads();
        if (step + 1 < steps) fetch(step + 1);
        const unsigned* const held = room + step % 2 * 2 * HELD * PITCH;
        const unsigned* const a = held + (lane % 8 + lane / 16 * 8) * PITCH + lane / 8 % 2 * 4;
        const unsigned* const b = held + (SEGMENT + warp + lane % 16) * PITCH + lane / 16 * 4;
        // NOTE: not summed by the tensor cores from step to step, which round towards zero; and 16
        // rows at a time, for more are more registers than there are.
#pragma unroll
        for (int i = 0; i < TILE / 16; ++i) {
            if (i >= tall || warp >= group) break;
            float products[TILE / 8][4] = {};
#pragma unroll
            for (int s = 0; s < SEGMENT; s += 16) {
                unsigned hi[4], lo[4];
                load_matrix<true>(hi, a + s * PITCH + 8 * i);
                load_matrix<true>(lo, a + (s + HELD) * PITCH + 8 * i);
#pragma unroll
                for (int j = 0; j < TILE / 16; ++j) {
                    if (j >= wide) break;
                    unsigned high[4], low[4];
                    load_matrix<true>(high, b + s * PITCH + 8 * j);
                    load_matrix<true>(low, b + (s + HELD) * PITCH + 8 * j);
                    add_parts(products + 2 * j, hi, lo, high, low);
                }
            }
#pragma unroll
            for (int j = 0; j < TILE / 2; ++j) sum[i][j / 4][j % 4] += products[j / 4][j % 4];
        }
        if (step + 1 < steps) keep(step + 1);
    }

    // Results.
    const int jx = j0 + warp;
    if (warp >= group || jx >= lx) return;
    const int row = chunk >= 0 ? chunk * ly + jy : jy * CLASSES + which;
    const int column = chunk >= 0 ? jx : jx * CLASSES + INNER;
    const int width = chunk >= 0 ? lx : lx * CLASSES;
    float* const out =
        (chunk >= 0 ? part : c) + (static_cast<size_t>(row) * width + column) * k * k;
#pragma unroll
    for (int i = 0; i < TILE / 16; ++i) {
#pragma unroll
        for (int j = 0; j < TILE / 8 * 4; ++j) {
            const int a = a0 + 16 * i + lane / 4 + j % 4 / 2 * 8;
            const int b = b0 + j / 4 * 8 + lane % 4 * 2 + j % 2;
            if (a < k && b < k) out[a * k + b] = sum[i][j / 4][j % 4];
        }
    }
}

// Pixels that a quarter of a block looks up at once, and loads at once.
constexpr int BATCH = 64, STEP = 16;
constexpr int QUARTERS = 4, QUARTER = 64, EDGE_THREADS = QUARTERS * QUARTER;

static_assert((TILE / SIDE) * (TILE / SIDE) == QUARTER, "a thread for each SIDE × SIDE classes");
static_assert(BATCH == QUARTER, "a thread looks up one pixel of a batch");
static_assert(BATCH % STEP == 0, "batches are loaded in whole steps");
static_assert(TILE * TILE <= QUARTERS * STEP * TILE, "what a quarter has summed fits");

// The correlations of pairs with a column at the border, at one pair of lags, one tile of (k, k),
// which go to c as above: few pixels, by the f32 units. blockIdx.x counts lags of rows, lags of
// columns and tiles, blockIdx.y the classes of rows and the two of columns.
KERNEL(iic_lags_edge, EDGE_THREADS)
(float* __restrict__ c, const float* __restrict__ maps, int n, int h, int w, int k, int ry,
 int rx) {
    SHARED(float, as, QUARTERS * STEP * TILE);
    SHARED(float, bs, QUARTERS * STEP * TILE);
    SHARED(int, at, QUARTERS * BATCH);
    const int t = threadIdx.x % QUARTER, quarter = threadIdx.x / QUARTER, tx = t % 8, ty = t / 8;
    const int tiles = (k + TILE - 1) / TILE, lag = blockIdx.x / (tiles * tiles), lx = 2 * rx + 1;
    const int a0 = blockIdx.x / tiles % tiles * TILE, b0 = blockIdx.x % tiles * TILE;
    const int jy = lag / lx, jx = lag % lx, high = blockIdx.y / 2,
              wide = blockIdx.y % 2 ? LAST : FIRST;
    const Pairs rows = pairs_of(h, ry - jy, high), columns = pairs_of(w, rx - jx, wide);
    const int per = rows.count * columns.count, pixels = per * n;
    const int apart = ((n * h + rows.q - rows.p) * w + columns.q - columns.p) * k;
    float* const own_a = as + quarter * STEP * TILE;
    float* const own_b = bs + quarter * STEP * TILE;
    int* const own_at = at + quarter * BATCH;
    float acc[SIDE][SIDE] = {};
    for (int begin = 0; begin < pixels; begin += QUARTERS * BATCH) {
        // Look up where the batch's pixels lie.
        const int pixel = begin + quarter * BATCH + t;
        int place = -1;
        if (pixel < pixels) {
            const int image = pixel / per, row = pixel % per;
            place = ((image * h + rows.p + row) * w + columns.p) * k;
        }
        own_at[t] = place;
        for (int step = 0; step < BATCH; step += STEP) {
            // Load both maps' classes of STEP pixels.
            __syncthreads();
#pragma unroll
            for (int i = t / 16; i < STEP; i += QUARTER / 16) {
                const int from = own_at[step + i];
#pragma unroll
                for (int j = t % 16; j < TILE; j += 16) {
                    own_a[i * TILE + j] = from >= 0 && a0 + j < k ? maps[from + a0 + j] : 0.0f;
                    own_b[i * TILE + j] =
                        from >= 0 && b0 + j < k ? maps[from + apart + b0 + j] : 0.0f;
                }
            }
            // Multiply.
            __syncthreads();
#pragma unroll 4
            for (int i = 0; i < STEP; ++i) {
                float a[SIDE], b[SIDE];
                six(a, own_a + i * TILE + ty * SIDE);
                six(b, own_b + i * TILE + tx * SIDE);
#pragma unroll
                for (int u = 0; u < SIDE; ++u) {
#pragma unroll
                    for (int v = 0; v < SIDE; ++v) acc[u][v] += a[u] * b[v];
                }
            }
        }
        // The places of the next batch are written when all have read these.
        __syncthreads();
    }
    // The first quarter adds up what the others have, one after the other.
#pragma unroll 1
    for (int i = 1; i < QUARTERS; ++i) {
        __syncthreads();
#pragma unroll
        for (int j = 0; j < SIDE * SIDE; ++j) {
            if (quarter == i) as[j * QUARTER + t] = acc[j / SIDE][j % SIDE];
        }
        __syncthreads();
#pragma unroll
        for (int j = 0; j < SIDE * SIDE; ++j) {
            if (quarter == 0) acc[j / SIDE][j % SIDE] += as[j * QUARTER + t];
        }
    }
    if (quarter > 0) return;
    const int row = jy * CLASSES + high, column = jx * CLASSES + wide;
    float* out = c + (static_cast<size_t>(row) * lx * CLASSES + column) * k * k;
#pragma unroll
    for (int u = 0; u < SIDE; ++u) {
#pragma unroll
        for (int v = 0; v < SIDE; ++v) {
            const int a = a0 + ty * SIDE + u, b = b0 + tx * SIDE + v;
            if (a < k && b < k) out[a * k + b] = acc[u][v];
        }
    }
}
