// Scores of a classifier, predictions at another size, and the gradients of scores.
//
//   s = F̂·wᵀ + b,  pred = arg-max of s resampled
//   dF̂ = dS·w, then as head_loss,  dw += dSᵀ·F̂,  db += Σ dS
//
// At 256×80×80 in bf16, K = 27: head_scores reads 0.74 GB of laterals and writes 0.18 GB, 0.21 ms
// at 4.3 TB/s, and multiplies 13 GFLOP, 0.2 ms at 60 TFLOP/s in f32. head_scores_backward reads
// both and writes 0.42 GB. head_scores_weight reads the laterals once for each 64 classes, and its
// products of 64 classes take 27 GFLOP whatever K is below.
#include "head_fill.cuh"
#include "head_gradient.cuh"

// Pixels of a block of head_predict, each of PREDICTORS threads.
constexpr int PREDICTORS = 8;
constexpr int PREDICTED = THREADS / PREDICTORS;
// Classes of a block of head_scores_weight.
constexpr int WEIGHED = TILE;

static_assert(WARP % PREDICTORS == 0, "the lanes of a pixel are neighbours");
static_assert(THREADS % WEIGHED == 0, "threads share the sum of a class evenly");
static_assert(WEIGHED == MINE * WARPS, "a warp has MINE classes");

// scores (images of the grid, h·w, k) of the images from `from` on. Grid (tiles of an image,
// images); dynamic shared memory: TILE_BYTES. The 4 lanes of a pixel write a sector of 32 bytes.
KERNEL(head_scores, THREADS, FILLERS - 1)(float* __restrict__ out, const Laterals laterals,
                                          const float* __restrict__ cw,
                                          const float* __restrict__ cb, int from, int k) {
    DYNAMIC_SHARED(float, tile);
    SHARED(unsigned, chunk, CHUNK_WORDS);
    SHARED(float, bias, CHUNK);
    const int first = blockIdx.x * TILE, pixels = laterals.h * laterals.w;
    fill(tile, nullptr, maps_of(from + blockIdx.y, laterals), first);
    out += (static_cast<size_t>(blockIdx.y) * pixels + first) * k;
    for (int class0 = 0; class0 < k; class0 += CHUNK) {
        __syncthreads();
        load_chunk(chunk, bias, cw, cb, k, class0);
        __syncthreads();
        float s[4][4];
        scores(s, tile, chunk, bias);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const bool exists = first + my_pixel(i) < pixels;
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const int c = class0 + my_class(j / 2, j % 2);
                if (exists && c < k) out[my_pixel(i) * k + c] = s[j / 2][2 * i + j % 2];
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
KERNEL(head_scores_backward, THREADS, FILLERS - 1)(act* __restrict__ dp2, act* __restrict__ dwarped,
                                                   const float* __restrict__ dscores,
                                                   const Laterals laterals,
                                                   const float* __restrict__ cw, int k) {
    DYNAMIC_SHARED(float, tile);
    SHARED(float, chunk, CHUNK * ROW);
    SHARED(float, slopes, CHUNK * SLOPES);
    SHARED(float, inverse, TILE);
    const int image = blockIdx.y, first = blockIdx.x * TILE, pixels = laterals.h * laterals.w;
    if (laterals.unit) fill(tile, inverse, maps_of(image, laterals), first);
    F4 gradient[MINE];
#pragma unroll
    for (int i = 0; i < MINE; ++i) gradient[i] = {{0.0f, 0.0f, 0.0f, 0.0f}};
    dscores += (static_cast<size_t>(image) * pixels + first) * k;
    for (int class0 = 0; class0 < k; class0 += CHUNK) {
        __syncthreads();
        load_rows(chunk, cw, k, class0);
#pragma unroll 1
        for (int i = 0; i < 2; ++i) {
            const bool exists = first + my_pixel(i) < pixels;
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const int c = my_class(j / 2, j % 2);
                slopes[c * SLOPES + my_pixel(i)] =
                    exists && class0 + c < k ? dscores[my_pixel(i) * k + class0 + c] : 0.0f;
            }
        }
        __syncthreads();
        add_products(gradient, slopes, chunk, k - class0 < CHUNK ? k - class0 : CHUNK);
    }
    store_gradient(dp2, dwarped, gradient, tile, inverse, laterals, image, first);
}

// partial (parts, k, D) = dSᵀ·F̂ and partial_bias (parts, k) = Σ dS over a block's tiles, for
// WEIGHED classes. Grid (parts, ⌈k/WEIGHED⌉); tile i of all is tile i % tiles of image i / tiles;
// dynamic shared memory: TILE_BYTES. head_sums adds the parts.
KERNEL(head_scores_weight, THREADS)(float* __restrict__ partial, float* __restrict__ partial_bias,
                                    const float* __restrict__ dscores, const Laterals laterals,
                                    int n, int k) {
    DYNAMIC_SHARED(float, tile);
    SHARED(float, slopes, TILE * SLOPES);
    SHARED(float, columns, THREADS);
    const int pixels = laterals.h * laterals.w, tiles = (pixels + TILE - 1) / TILE,
              class0 = blockIdx.y * WEIGHED;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int column = threadIdx.x % WEIGHED, quarter = threadIdx.x / WEIGHED, c = class0 + column;
    F4 sum[MINE];
#pragma unroll
    for (int i = 0; i < MINE; ++i) sum[i] = {{0.0f, 0.0f, 0.0f, 0.0f}};
    float bias = 0.0f;
    for (int i = blockIdx.x; i < n * tiles; i += gridDim.x) {
        const int image = i / tiles, first = (i - image * tiles) * TILE;
        const int rows = pixels - first < TILE ? pixels - first : TILE;
        // Features and slopes of a tile.
        __syncthreads();
        fill(tile, nullptr, maps_of(image, laterals), first);
        const float* from = dscores + (static_cast<size_t>(image) * pixels + first) * k + c;
        for (int row = quarter; row < rows; row += THREADS / WEIGHED) {
            const float slope = c < k ? from[row * k] : 0.0f;
            slopes[row * SLOPES + column] = slope;
            bias += slope;
        }
        __syncthreads();
        add_products(sum, slopes, tile, rows);
    }
    // The block's sums; those of the bias from the threads that share a class.
    partial += (static_cast<size_t>(blockIdx.x) * k + class0) * D + 4 * lane;
#pragma unroll
    for (int i = 0; i < MINE; ++i) {
        const int row = warp * MINE + i;
        if (class0 + row < k) store(partial + row * D, sum[i]);
    }
    columns[threadIdx.x] = bias;
    __syncthreads();
    if (quarter == 0 && c < k) {
        float total = 0.0f;
        for (int i = 0; i < THREADS / WEIGHED; ++i) total += columns[i * WEIGHED + column];
        partial_bias[static_cast<size_t>(blockIdx.x) * k + c] = total;
    }
}
