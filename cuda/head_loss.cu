// Weighted cross-entropy against two classifiers and its gradient down to the laterals.
//
//   ℓ = log Σ exp(s) − s[y];  losses[i] = Σ w[y]·ℓ / Σ_view w[y]
//   dS = scale·w[y]/Σ w·(softmax(s) − onehot(y));  dF̂ = dS·W;  dF = (dF̂ − F̂·(F̂·dF̂))/‖F‖
//
// head_loss goes from laterals to dF in one pass: 1.33·n·h·w·128·sizeof(act) in, n·h·w·128·sizeof(act) out, with o3 1.4 GB or
// 0.33 ms for 256×80×80 in bf16 at 4.3 TB/s. Its 54 GFLOP (two classifiers of 32 classes, forward and backward) as f32
// multiply-adds are above that, 0.9 ms at 60 TFLOP/s: it is bound by arithmetic until the products move to tensor cores.
// Adjoints of the warp and of the merge are gathers: each pixel of the result sums what it was sampled to, in a fixed order;
// every fine pixel is read about four times, once of them from memory.
#include "head.cuh"

// partial (n, 2) = Σ w[y] over an image, against both classifiers. Grid (n, 2).
KERNEL(head_weigh, 256)(float* __restrict__ partial, const unsigned short* __restrict__ labels0,
                        const unsigned short* __restrict__ labels1, const unsigned* __restrict__ index,
                        const float* __restrict__ weights0, const float* __restrict__ weights1, int images, int pixels,
                        int k0, int k1) {
    SHARED(float, sums, 256);
    const unsigned row = index[blockIdx.x];
    const unsigned short* labels = blockIdx.y == 0 ? labels0 : labels1;
    const float* weights = blockIdx.y == 0 ? weights0 : weights1;
    const int k = blockIdx.y == 0 ? k0 : k1, t = threadIdx.x;
    float sum = 0.0f;
    if (row < static_cast<unsigned>(images)) {
        labels += static_cast<size_t>(row) * pixels;
        for (int i = t; i < pixels; i += 256) sum += labels[i] < k ? weights[labels[i]] : NAN;
    } else {
        sum = NAN;
    }
    sums[t] = sum;
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) sums[t] += sums[t + half];
    }
    if (t == 0) partial[2 * blockIdx.x + blockIdx.y] = sums[0];
}

// shares (views, 2) = 1/Σ of partial (n, 2) over a view, 0 where the sum is. One block, a thread a share in turn.
KERNEL(head_shares, 32)(float* __restrict__ shares, const float* __restrict__ partial, int n, int view) {
    for (int i = threadIdx.x; i < 2 * (n / view); i += 32) {
        double sum = 0.0;
        for (int image = 0; image < view; ++image) sum += partial[2 * (i / 2 * view + image) + i % 2];
        shares[i] = sum == 0.0 ? 0.0f : static_cast<float>(1.0 / sum);
    }
}

// Floats from class to class of dS in shared memory.
constexpr int SLOPES = TILE + 4;

// partial (n·tiles, 2) = Σ w[y]·ℓ over a tile; the gradient of F goes to dp2 (n, h, w, D) where the image is not warped, else to
// dwarped (n, h, w, D). Grid (tiles of an image, n). A thread has 2 pixels × 4 classes of the scores, and 8 pixels × 4 channels of
// the gradient.
KERNEL(head_loss, 256)(float* __restrict__ partial, act* __restrict__ dp2, act* __restrict__ dwarped,
                       const float* __restrict__ shares, const float* __restrict__ o3, const act* __restrict__ p2,
                       const act* __restrict__ p3, const act* __restrict__ p4, const act* __restrict__ p5,
                       const unsigned* __restrict__ crops, const unsigned* __restrict__ index,
                       const unsigned short* __restrict__ labels0, const unsigned short* __restrict__ labels1,
                       const float* __restrict__ weights0, const float* __restrict__ weights1, const float* __restrict__ cw0,
                       const float* __restrict__ cw1, const float* __restrict__ cb0, const float* __restrict__ cb1,
                       int images, int view, int h, int w, int k0, int k1, float scale) {
    DYNAMIC_SHARED(float, tile);
    SHARED(float, chunk, CHUNK * ROW);
    SHARED(float, bias, CHUNK);
    SHARED(float, slopes, CHUNK * SLOPES);
    SHARED(float, inverse, TILE);
    SHARED(float, losses, 2 * WARPS);
    const int image = blockIdx.y, first = blockIdx.x * TILE, pixels = h * w;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    fill(tile, inverse, maps_of(image, o3, p2, p3, p4, p5, crops, h, w), first);
    F4 gradient[MINE];
#pragma unroll
    for (int i = 0; i < MINE; ++i) gradient[i] = {{0.0f, 0.0f, 0.0f, 0.0f}};

#pragma unroll 1
    for (int c = 0; c < 2; ++c) {
        const float *cw = c == 0 ? cw0 : cw1, *cb = c == 0 ? cb0 : cb1, *weights = c == 0 ? weights0 : weights1;
        const unsigned row = index[image];
        const bool stored = row < static_cast<unsigned>(images);
        const unsigned short* labels = (c == 0 ? labels0 : labels1) + (stored ? static_cast<size_t>(row) * pixels : 0);
        const int k = c == 0 ? k0 : k1;
        int y[2];
        float weight[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int pixel = first + my_pixel(i);
            y[i] = pixel < pixels ? labels[pixel] : 0;
            weight[i] = pixel >= pixels ? 0.0f : stored && y[i] < k ? weights[y[i]] : NAN;
        }

        // log Σ exp over the chunks: top is the largest score so far, sum that of exp(s − top). NOTE: top begins finite, since
        // exp(−∞ − −∞) of a thread that has only padding would be NaN.
        float s[2][4], top[2] = {-1e30f, -1e30f}, sum[2] = {0.0f, 0.0f}, at_label[2] = {0.0f, 0.0f};
        for (int class0 = 0; class0 < k; class0 += CHUNK) {
            __syncthreads();
            load_chunk(chunk, bias, cw, cb, k, class0);
            __syncthreads();
            scores(s, tile, chunk, bias);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const float before = top[i];
#pragma unroll
                for (int j = 0; j < 4; ++j) top[i] = fmaxf(top[i], s[i][j]);
                sum[i] *= expf(before - top[i]);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    sum[i] += expf(s[i][j] - top[i]);
                    if (class0 + my_class(j) == y[i]) at_label[i] = s[i][j];
                }
            }
        }
        // The 8 lanes of a pixel together.
        float loss = 0.0f;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int step = 1; step < 8; step *= 2) {
                const float other = __shfl_xor_sync(ALL_LANES, top[i], step);
                const float most = fmaxf(top[i], other);
                sum[i] = sum[i] * expf(top[i] - most) + __shfl_xor_sync(ALL_LANES, sum[i], step) * expf(other - most);
                at_label[i] += __shfl_xor_sync(ALL_LANES, at_label[i], step);
                top[i] = most;
            }
            if (lane % 8 == 0) loss += weight[i] * (logf(sum[i]) - (at_label[i] - top[i]));
            // From here on the slope of the loss, and that over the sum.
            weight[i] *= scale * shares[image / view * 2 + c];
            sum[i] = weight[i] / sum[i];
        }
        loss = warp_sum(loss);
        if (lane == 0) losses[c * WARPS + warp] = loss;

        for (int class0 = 0; class0 < k; class0 += CHUNK) {
            // Of a single chunk the scores are still here.
            if (k > CHUNK) {
                __syncthreads();
                load_chunk(chunk, bias, cw, cb, k, class0);
                __syncthreads();
                scores(s, tile, chunk, bias);
            }
#pragma unroll
            for (int i = 0; i < 2; ++i) {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const float hit = class0 + my_class(j) == y[i] ? weight[i] : 0.0f;
                    slopes[my_class(j) * SLOPES + my_pixel(i)] = sum[i] * expf(s[i][j] - top[i]) - hit;
                }
            }
            // A warp's slopes are its own.
            __syncwarp();
            const int classes = k - class0 < CHUNK ? k - class0 : CHUNK;
#pragma unroll 2
            for (int j = 0; j < classes; ++j) {
                const F4 x = load(chunk + j * ROW + 4 * lane);
                const F4 low = load(slopes + j * SLOPES + warp * MINE), high = load(slopes + j * SLOPES + warp * MINE + 4);
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    add_scaled(gradient[i], low.v[i], x);
                    add_scaled(gradient[i + 4], high.v[i], x);
                }
            }
        }
    }

    act* df = window_of(crops, image, h, w).side == 0 ? dp2 : dwarped;
    df += static_cast<size_t>(image) * pixels * D + 4 * lane;
#pragma unroll
    for (int i = 0; i < MINE; ++i) {
        const int at = warp * MINE + i;
        const F4 f = load(tile + at * ROW + 4 * lane);
        const float scale = inverse[at], along = warp_sum(dot(gradient[i], f));
        // A clamped norm is a constant.
        add_scaled(gradient[i], scale >= 1.0f / EPS ? 0.0f : -along, f);
#pragma unroll
        for (int l = 0; l < 4; ++l) gradient[i].v[l] *= scale;
        if (first + at < pixels) store4(df + (first + at) * D, gradient[i]);
    }
    __syncthreads();
    if (threadIdx.x < 2) {
        float loss = 0.0f;
        for (int i = 0; i < WARPS; ++i) loss += losses[threadIdx.x * WARPS + i];
        partial[2 * (static_cast<size_t>(image) * gridDim.x + blockIdx.x) + threadIdx.x] = loss;
    }
}

// losses (n, 2) = shares·Σ partial (n, tiles, 2). A warp an image.
KERNEL(head_losses, 256)(float* __restrict__ losses, const float* __restrict__ partial, const float* __restrict__ shares,
                         int n, int tiles, int view) {
    const int image = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (image >= n) return;
    partial += 2 * static_cast<size_t>(image) * tiles;
    float sum[2] = {0.0f, 0.0f};
    for (int tile = lane; tile < tiles; tile += 32) {
        sum[0] += partial[2 * tile];
        sum[1] += partial[2 * tile + 1];
    }
#pragma unroll
    for (int c = 0; c < 2; ++c) {
        sum[c] = warp_sum(sum[c]);
        if (lane == 0) losses[2 * image + c] = sum[c] * shares[image / view * 2 + c];
    }
}

// One side of a map of `len` pixels that was resampled to `samples`.
struct Side {
    int len, samples;

    // What sample i takes of pixel j.
    __device__ __forceinline__ float weight(int i, int j) const {
        const Tap at = tap(i, len, ratio(len, samples));
        return (at.lo == j ? 1.0f - at.t : 0.0f) + (at.hi == j ? at.t : 0.0f);
    }

    // The samples between the neighbours of pixel j: others take nothing of it.
    __device__ __forceinline__ int first(int j) const {
        const int i = static_cast<int>(floorf((j - 0.5f) * ratio(samples, len) - 0.5f));
        return i > 0 ? i : 0;
    }
    __device__ __forceinline__ int last(int j) const {
        const int i = static_cast<int>(ceilf((j + 1.5f) * ratio(samples, len) - 0.5f));
        return i < samples - 1 ? i : samples - 1;
    }
};

// What pixel (y, x) of a map receives back from its samples dout (rows.samples, columns.samples, D), mirrored if `flip`. A warp a
// pixel; a lane keeps the weight of one column of 32.
__device__ __forceinline__ F4 adjoint(const act* dout, const Side& rows, const Side& columns, int y, int x, bool flip) {
    const int lane = threadIdx.x % 32, width = columns.samples, end = columns.last(x) + 1, bottom = rows.last(y);
    F4 sum = {{0.0f, 0.0f, 0.0f, 0.0f}};
    for (int base = columns.first(x); base < end; base += 32) {
        const float mine = base + lane < end ? columns.weight(base + lane, x) : 0.0f;
        const int count = end - base < 32 ? end - base : 32;
        for (int v = rows.first(y); v <= bottom; ++v) {
            const float down = rows.weight(v, y);
            const act* line = dout + v * width * D;
#pragma unroll 4
            for (int i = 0; i < count; ++i) {
                const float weight = down * __shfl_sync(ALL_LANES, mine, i);
                const int u = flip ? width - 1 - (base + i) : base + i;
                if (weight != 0.0f) add_scaled(sum, weight, load(line + u * D));
            }
        }
    }
    return sum;
}

// dp2 (n, h, w, D) = gradient of F from that of its warp, of images that are warped; others stay. A warp a pixel; grid
// (pixels/8, n).
KERNEL(head_unwarp, 256)(act* __restrict__ dp2, const act* __restrict__ dwarped, const unsigned* __restrict__ crops, int h,
                         int w) {
    const int pixel = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    const Window window = window_of(crops, blockIdx.y, h, w);
    if (pixel >= h * w || window.side == 0) return;
    const size_t image = static_cast<size_t>(blockIdx.y) * h * w * D + 4 * lane;
    const int y = pixel / w - window.top, x = pixel % w - window.left;
    F4 sum = {{0.0f, 0.0f, 0.0f, 0.0f}};
    if (y >= 0 && y < window.side && x >= 0 && x < window.side) {
        sum = adjoint(dwarped + image, {window.side, h}, {window.side, w}, y, x, window.flip);
    }
    store4(dp2 + image + pixel * D, sum);
}

// dcoarse (n, h, w, D) = adjoint of up from (h, w) to the size of dfine (n, fine_h, fine_w, D). A warp a pixel; grid (pixels/8, n).
KERNEL(head_down, 256)(act* __restrict__ dcoarse, const act* __restrict__ dfine, int h, int w, int fine_h, int fine_w) {
    const int pixel = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (pixel >= h * w) return;
    dcoarse += static_cast<size_t>(blockIdx.y) * h * w * D + 4 * lane;
    dfine += static_cast<size_t>(blockIdx.y) * fine_h * fine_w * D + 4 * lane;
    store4(dcoarse + pixel * D, adjoint(dfine, {h, fine_h}, {w, fine_w}, pixel / w, pixel % w, false));
}
