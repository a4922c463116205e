// Scores of a classifier, predictions at another size, and the gradients of scores.
//
//   s = F̂·wᵀ + b,  pred = arg-max of s resampled
//   dF̂ = dS·w, then as head_loss,  dw += dSᵀ·F̂,  db += Σ dS
//
// At 256×80×80 in bf16, K = 27: head_scores reads 0.74 GB of laterals and writes 0.18 GB, 0.21 ms
// at 4.3 TB/s. head_scores_backward reads both and writes 0.42 GB. head_scores_weight reads the
// laterals once for each 64 classes. Their products, 13 GFLOP each, are three of bf16 on tensor
// cores, 0.05 ms: all of them are bound by the instructions that fill tiles.
#include "head_fill.cuh"
#include "head_gradient.cuh"

// Pixels of a block of head_predict, each of PREDICTORS threads.
constexpr int PREDICTORS = 8;
constexpr int PREDICTED = THREADS / PREDICTORS;
// Classes of a block of head_scores_weight.
constexpr int WEIGHED = 64;
// Words from pixel to pixel of its slopes, and of each of their two parts: 16-byte reads of 8
// pixels fall on different banks.
constexpr int SLOPES = WEIGHED / 2 + 4;
constexpr int SLOPE_WORDS = TILE * SLOPES;

static_assert(WARP % PREDICTORS == 0, "the lanes of a pixel are neighbours");
static_assert(WEIGHED == 2 * WARP, "a lane has two classes");
static_assert(SLOPES % 32 == 4, "slopes of eight pixels fall on different banks");
static_assert(D == 32 * WARPS, "a warp has 32 channels");

// scores (images of the grid, h·w, k) of the images from `from` on. Grid (tiles of an image,
// images); dynamic shared memory: TILE_BYTES. The 4 lanes of a pixel write a sector of 32 bytes.
KERNEL(head_scores, THREADS, FILLERS - 1)(float* __restrict__ out, const Laterals laterals,
                                          const float* __restrict__ cw,
                                          const float* __restrict__ cb, int from, int k) {
    DYNAMIC_SHARED(float, tile);
    SHARED(unsigned, chunk, CHUNK_WORDS);
    SHARED(float, bias, CHUNK);
    const int pixels = laterals.h * laterals.w;
    const Spot spot = spot_of(blockIdx.x, laterals.h, laterals.w);
    fill(tile, nullptr, maps_of(from + blockIdx.y, laterals), spot);
    out += static_cast<size_t>(blockIdx.y) * pixels * k;
    for (int class0 = 0; class0 < k; class0 += CHUNK) {
        __syncthreads();
        load_chunk(chunk, bias, cw, cb, k, class0);
        __syncthreads();
        float s[4][4];
        scores(s, tile, chunk, bias);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const bool exists = spot.has(my_pixel(i));
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const int c = class0 + my_class(j / 2, j % 2);
                if (exists && c < k) out[spot.pixel(my_pixel(i)) * k + c] = s[j / 2][2 * i + j % 2];
            }
        }
    }
}

// pred (n, out_h, out_w) = the best of k classes by scores (images of the grid, h, w, k) resampled,
// for the images from `from` on. The scores of another view, `apart` floats behind them unless that
// is 0, are added first. 8 lanes have a pixel, each every eighth class; grid (⌈pixels/PREDICTED⌉,
// images).
KERNEL(head_predict, THREADS)(unsigned short* __restrict__ pred, const float* __restrict__ scores,
                              size_t apart, int from, int h, int w, int k, int out_h, int out_w) {
    const int pixels = out_h * out_w, mine = blockIdx.x * PREDICTED + threadIdx.x / PREDICTORS,
              lane = threadIdx.x % PREDICTORS;
    // Lanes behind the last pixel go along, for the shuffles.
    const int pixel = mine < pixels ? mine : pixels - 1;
    const int y = pixel / out_w, x = pixel - y * out_w;
    const Tap v = tap(y, h, ratio(h, out_h)), u = tap(x, w, ratio(w, out_w));
    const float* s = scores + static_cast<size_t>(blockIdx.y) * h * w * k;
    const float *top_left = s + static_cast<size_t>(v.lo * w + u.lo) * k,
                *top_right = s + static_cast<size_t>(v.lo * w + u.hi) * k;
    const float *low_left = s + static_cast<size_t>(v.hi * w + u.lo) * k,
                *low_right = s + static_cast<size_t>(v.hi * w + u.hi) * k;
    float top = -INFINITY;
    int place = 0;
    for (int c = lane; c < k; c += PREDICTORS) {
        const auto at = [&](const float* s) { return apart == 0 ? s[c] : s[c] + s[c + apart]; };
        const float high_left = at(top_left), high_right = at(top_right);
        const float left = high_left + v.t * (at(low_left) - high_left);
        const float right = high_right + v.t * (at(low_right) - high_right);
        const float score = left + u.t * (right - left);
        if (score > top) {
            top = score;
            place = c;
        }
    }
    best_of_lanes<PREDICTORS>(top, place);
    if (lane == 0 && mine < pixels) {
        pred[static_cast<size_t>(from + blockIdx.y) * pixels + pixel] =
            static_cast<unsigned short>(place);
    }
}

// Writes the gradient of F to dp2 or dwarped (n, h, w, D), from dscores (n, h·w, k). Grid (tiles of
// an image, n); dynamic shared memory: TILE_BYTES.
KERNEL(head_scores_backward, THREADS,
       BLOCKS)(act* __restrict__ dp2, act* __restrict__ dwarped, const float* __restrict__ dscores,
               const Laterals laterals, const float* __restrict__ cw, int k) {
    DYNAMIC_SHARED(float, tile);
    SHARED(unsigned, chunk, CHUNK_WORDS);
    SHARED(float, inverse, TILE);
    const int image = blockIdx.y, pixels = laterals.h * laterals.w;
    const Spot spot = spot_of(blockIdx.x, laterals.h, laterals.w);
    if (laterals.unit) fill(tile, inverse, maps_of(image, laterals), spot);
    float gradient[OCTETS][4];
    clear(gradient);
    dscores += static_cast<size_t>(image) * pixels * k;
#pragma unroll 1
    for (int class0 = 0; class0 < k; class0 += CHUNK) {
        __syncthreads();
        load_rows(chunk, cw, k, class0);
        float slopes[4][4];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int pixel = my_pixel(i);
            const float scale = laterals.unit ? inverse[pixel] : 1.0f;
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const int c = class0 + my_class(j / 2, j % 2);
                const bool exists = spot.has(pixel) && c < k;
                slopes[j / 2][2 * i + j % 2] =
                    exists ? scale * dscores[spot.pixel(pixel) * k + c] : 0.0f;
            }
        }
        __syncthreads();
        add_products(gradient, slopes, chunk, k - class0);
    }
    store_gradient(dp2, dwarped, gradient, tile, inverse, laterals, image, spot);
}

// partial (parts, k, D) = dSᵀ·F̂ and partial_bias (parts, k) = Σ dS over a block's tiles, for
// WEIGHED classes. Grid (parts, ⌈k/WEIGHED⌉); tile i of all is tile i % tiles of image i / tiles;
// dynamic shared memory: TILE_BYTES. head_sums adds the parts. A warp has 32 channels of all
// classes: products over pixels, whose factors lie in shared memory the other way round.
KERNEL(head_scores_weight, THREADS,
       2)(float* __restrict__ partial, float* __restrict__ partial_bias,
          const float* __restrict__ dscores, const Laterals laterals, int n, int k) {
    DYNAMIC_SHARED(float, tile);
    SHARED(unsigned, slopes, 2 * SLOPE_WORDS);
    SHARED(float, columns, WARPS * WEIGHED);
    const int pixels = laterals.h * laterals.w, tiles = across(laterals.h) * across(laterals.w),
              class0 = blockIdx.y * WEIGHED;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    float sum[WEIGHED / 16][4][4] = {}, bias[2] = {};
#pragma unroll 1
    for (int at = blockIdx.x; at < n * tiles; at += gridDim.x) {
        const int image = at / tiles;
        const Spot spot = spot_of(at - image * tiles, laterals.h, laterals.w);
        // Features and slopes of a tile, a warp every fourth pixel and a lane two classes.
        __syncthreads();
        fill(tile, nullptr, maps_of(image, laterals), spot);
        const int c = class0 + 2 * lane;
        const float* from = dscores + static_cast<size_t>(image) * pixels * k + c;
#pragma unroll 4
        for (int row = warp; row < TILE; row += WARPS) {
            const bool exists = spot.has(row);
            const int at = exists ? spot.pixel(row) * k : 0;
            const float x = exists && c < k ? from[at] : 0.0f;
            const float y = exists && c + 1 < k ? from[at + 1] : 0.0f;
            const Split parts = split(x, y);
            slopes[row * SLOPES + lane] = parts.hi;
            slopes[row * SLOPES + lane + SLOPE_WORDS] = parts.lo;
            bias[0] += x;
            bias[1] += y;
        }
        __syncthreads();
        // 8 channels at a time. NOTE: not summed by the tensor cores from tile to tile, which round
        // towards zero.
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            float products[WEIGHED / 16][4] = {};
            const float* const f = tile + 2 * t * ROW + 32 * warp + 8 * j + g;
#pragma unroll 1
            for (int p = 0; p < TILE; p += 16) {
                unsigned high[2], low[2];
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const float* const x = f + (p + 8 * i) * ROW;
                    const Split parts = split(x[0], x[ROW]);
                    high[i] = parts.hi;
                    low[i] = parts.lo;
                }
                // A load brings 16 classes of 16 pixels.
                const unsigned* const slope =
                    slopes + (p + lane % 8 + lane / 16 * 8) * SLOPES + lane / 8 % 2 * 4;
#pragma unroll
                for (int m = 0; m < WEIGHED / 16; ++m) {
                    if (class0 + 16 * m >= k) break;
                    unsigned a[4], rest[4];
                    load_matrix<true>(a, slope + 8 * m);
                    load_matrix<true>(rest, slope + 8 * m + SLOPE_WORDS);
                    mma(products[m], rest, high);
                    mma(products[m], a, low);
                    mma(products[m], a, high);
                }
            }
#pragma unroll
            for (int m = 0; m < WEIGHED / 16; ++m) {
#pragma unroll
                for (int i = 0; i < 4; ++i) sum[m][j][i] += products[m][i];
            }
        }
    }
    // The block's sums; those of the bias from the warps that share a class.
    partial += static_cast<size_t>(blockIdx.x) * k * D + 32 * warp + 2 * t;
#pragma unroll
    for (int i = 0; i < WEIGHED / 8; ++i) {
        const int row = class0 + 8 * i + g;
        if (row >= k) break;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const float* const x = sum[i / 2][j] + i % 2 * 2;
            *reinterpret_cast<float2*>(partial + static_cast<size_t>(row) * D + 8 * j) =
                make_float2(x[0], x[1]);
        }
    }
    columns[warp * WEIGHED + 2 * lane] = bias[0];
    columns[warp * WEIGHED + 2 * lane + 1] = bias[1];
    __syncthreads();
    const int column = threadIdx.x;
    if (column < WEIGHED && class0 + column < k) {
        float total = 0.0f;
        for (int i = 0; i < WARPS; ++i) total += columns[i * WEIGHED + column];
        partial_bias[static_cast<size_t>(blockIdx.x) * k + class0 + column] = total;
    }
}
