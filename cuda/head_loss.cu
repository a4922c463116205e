// Weighted cross-entropy of the head's scores against one to four targets, and its gradient down to
// F.
//
//   ℓ = log Σ exp(s) − s[y];  losses[i] = Σ w[y]·ℓ / Σ_view w[y]
//   dS = scale·w[y]/Σ w·(softmax(s) − onehot(y));  dF̂ = dS·W;  dF = (dF̂ − F̂·(F̂·dF̂))/‖F‖
//
// head_loss goes from laterals to dF in one pass: 1.33·n·h·w·128·sizeof(act) in,
// n·h·w·128·sizeof(act) out, with o3 1.4 GB or 0.33 ms for 256×80×80 in bf16 at 4.3 TB/s. Its 54
// GFLOP (two classifiers of 32 classes, forward and backward) as f32 multiply-adds are above that,
// 0.9 ms at 60 TFLOP/s: it is bound by arithmetic until the products move to tensor cores.
#include "head_fill.cuh"
#include "head_gradient.cuh"

constexpr int MOST_TARGETS = 4;

// What an image's scores are compared with: a classifier w (k, D), b (k), class weights (k) and
// labels (images, h, w).
struct Target {
    const float *w, *b, *weights;
    const unsigned short* labels;
    int k;
    float scale;
};

// What a loss reads beside the laterals, passed by value: the first `count` targets. The labels of
// image i are row index[i] of each target, `view` images are a view.
struct Targets {
    Target at[MOST_TARGETS];
    const unsigned* index;
    int count, images, view, pixels;
};

// partial (n, targets) = Σ w[y] over an image. Grid (n, targets).
KERNEL(head_weigh, THREADS)(float* __restrict__ partial, const Targets targets) {
    SHARED(float, sums, THREADS);
    const Target& target = targets.at[blockIdx.y];
    const unsigned row = targets.index[blockIdx.x];
    const unsigned short* labels = target.labels;
    const float* weights = target.weights;
    const int k = target.k, pixels = targets.pixels, t = threadIdx.x;
    float sum = 0.0f;
    if (row < static_cast<unsigned>(targets.images)) {
        labels += static_cast<size_t>(row) * pixels;
        for (int i = t; i < pixels; i += THREADS) sum += labels[i] < k ? weights[labels[i]] : NAN;
    } else {
        sum = NAN;
    }
    sums[t] = sum;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) sums[t] += sums[t + half];
    }
    if (t == 0) partial[targets.count * blockIdx.x + blockIdx.y] = sums[0];
}

// shares (views, targets) = 1/Σ of partial (n, targets) over a view, 0 where the sum is 0. One
// block; its threads take the shares in turn.
KERNEL(head_shares, WARP)(float* __restrict__ shares, const float* __restrict__ partial, int n,
                          int view, int targets) {
    for (int i = threadIdx.x; i < targets * (n / view); i += WARP) {
        double sum = 0.0;
        for (int image = 0; image < view; ++image)
            sum += partial[targets * (i / targets * view + image) + i % targets];
        shares[i] = sum == 0.0 ? 0.0f : static_cast<float>(1.0 / sum);
    }
}

// partial (n·tiles, targets) = Σ w[y]·ℓ over a tile; the gradient of F goes to dp2 or dwarped (n,
// h, w, D). Grid (tiles of an image, n); dynamic shared memory: TILE_BYTES. A thread has 2 pixels ×
// 8 classes of the scores, and 16 pixels × 4 channels of the gradient.
KERNEL(head_loss, THREADS)(float* __restrict__ partial, act* __restrict__ dp2,
                           act* __restrict__ dwarped, const float* __restrict__ shares,
                           const Laterals laterals, const Targets targets) {
    DYNAMIC_SHARED(float, tile);
    SHARED(unsigned, chunk, CHUNK_WORDS);
    SHARED(float, classes, CHUNK * ROW);
    SHARED(float, bias, CHUNK);
    SHARED(float, slopes, CHUNK * SLOPES);
    SHARED(float, inverse, TILE);
    SHARED(float, losses, MOST_TARGETS * WARPS);
    const int image = blockIdx.y, first = blockIdx.x * TILE, pixels = targets.pixels;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    // Features of the tile.
    fill(tile, inverse, maps_of(image, laterals), first);
    F4 gradient[MINE];
#pragma unroll
    for (int i = 0; i < MINE; ++i) gradient[i] = {{0.0f, 0.0f, 0.0f, 0.0f}};

#pragma unroll 1
    for (int c = 0; c < targets.count; ++c) {
        const Target& target = targets.at[c];
        const float *cw = target.w, *cb = target.b;
        const unsigned row = targets.index[image];
        const bool stored = row < static_cast<unsigned>(targets.images);
        const unsigned short* labels =
            target.labels + (stored ? static_cast<size_t>(row) * pixels : 0);
        const int k = target.k;
        // Labels and weights of the thread's pixels.
        int y[2];
        float weight[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int pixel = first + my_pixel(i);
            y[i] = pixel < pixels ? labels[pixel] : 0;
            weight[i] = pixel >= pixels ? 0.0f : stored && y[i] < k ? target.weights[y[i]] : NAN;
        }

        // Forward, log Σ exp over the chunks: top is the largest score so far, sum that of exp(s −
        // top). NOTE: top begins finite, since exp(−∞ − −∞) of a thread that has only padding would
        // be NaN.
        float s[4][4], top[2] = {-1e30f, -1e30f}, sum[2] = {0.0f, 0.0f}, at_label[2] = {0.0f, 0.0f};
        for (int class0 = 0; class0 < k; class0 += CHUNK) {
            __syncthreads();
            load_chunk(chunk, bias, cw, cb, k, class0);
            __syncthreads();
            scores(s, tile, chunk, bias);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const float before = top[i];
#pragma unroll
                for (int j = 0; j < 8; ++j) top[i] = fmaxf(top[i], s[j / 2][2 * i + j % 2]);
                sum[i] *= expf(before - top[i]);
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    const float score = s[j / 2][2 * i + j % 2];
                    sum[i] += expf(score - top[i]);
                    if (class0 + my_class(j / 2, j % 2) == y[i]) at_label[i] = score;
                }
            }
        }
        // The 4 lanes of a pixel put theirs together, and one of them adds the loss.
        float loss = 0.0f;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int step = 1; step < 4; step *= 2) {
                const float other = __shfl_xor_sync(ALL_LANES, top[i], step);
                const float most = fmaxf(top[i], other);
                sum[i] = sum[i] * expf(top[i] - most) +
                         __shfl_xor_sync(ALL_LANES, sum[i], step) * expf(other - most);
                at_label[i] += __shfl_xor_sync(ALL_LANES, at_label[i], step);
                top[i] = most;
            }
            if (lane % 4 == 0) loss += weight[i] * (logf(sum[i]) - (at_label[i] - top[i]));
            // From here on `weight` is the slope of the loss, and `sum` that slope over the sum.
            weight[i] *= target.scale * shares[image / targets.view * targets.count + c];
            sum[i] = weight[i] / sum[i];
        }
        loss = warp_sum(loss);
        if (lane == 0) losses[c * WARPS + warp] = loss;

        // Backward, chunk by chunk: slopes of the scores, times rows of w.
        for (int class0 = 0; class0 < k; class0 += CHUNK) {
            // The scores of a single chunk are still here.
            __syncthreads();
            load_rows(classes, cw, k, class0);
            if (k > CHUNK) load_chunk(chunk, bias, cw, cb, k, class0);
            __syncthreads();
            if (k > CHUNK) scores(s, tile, chunk, bias);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    const int c = my_class(j / 2, j % 2);
                    const float hit = class0 + c == y[i] ? weight[i] : 0.0f;
                    slopes[c * SLOPES + my_pixel(i)] =
                        sum[i] * expf(s[j / 2][2 * i + j % 2] - top[i]) - hit;
                }
            }
            // A warp reads only the slopes that it wrote.
            __syncwarp();
            add_products(gradient, slopes, classes, k - class0 < CHUNK ? k - class0 : CHUNK);
        }
    }

    // Results: the gradient of F, and the block's losses.
    store_gradient(dp2, dwarped, gradient, tile, inverse, laterals, image, first);
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < targets.count) {
        float loss = 0.0f;
        for (int i = 0; i < WARPS; ++i) loss += losses[threadIdx.x * WARPS + i];
        partial[targets.count * (static_cast<size_t>(image) * gridDim.x + blockIdx.x) +
                threadIdx.x] = loss;
    }
}

// losses (n, targets) = shares·Σ partial (n, tiles, targets). A warp has an image.
KERNEL(head_losses, THREADS)(float* __restrict__ losses, const float* __restrict__ partial,
                             const float* __restrict__ shares, int n, int tiles, int view,
                             int targets) {
    const int image = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (image >= n) return;
    partial += targets * static_cast<size_t>(image) * tiles;
#pragma unroll 1
    for (int c = 0; c < targets; ++c) {
        float sum = 0.0f;
        for (int tile = lane; tile < tiles; tile += 32) sum += partial[targets * tile + c];
        sum = warp_sum(sum);
        if (lane == 0) losses[targets * image + c] = sum * shares[image / view * targets + c];
    }
}
