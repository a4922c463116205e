// Softmax over rows of k scores, its gradient, and the cross-entropy against labels, in place.
//
//   p = exp(s − max)/Σ exp(s − max);  ds = p∘(dp − Σ dp·p)
//   ℓ = log Σ exp(s) − s[y];  losses[i] = Σ w[y]·ℓ / Σ w[y]
//   ds = scale·w[y]/Σ w·(softmax(s) − onehot(y)), 0 where y >= k
//
// Bytes: forward, scores are read and written, 8 a score; backward, dp and p are read and dp is
// written, 12 a score. For 256×80×80 rows of 27 scores that is 354 MB or 82 µs at 4.3 TB/s forward
// and 531 MB or 123 µs backward; the loss adds 2·2 bytes a row. There are two kernels for each:
//
//   _tile  k ≤ NARROW: a block takes 128 rows, one contiguous piece, through shared memory; then a
//          thread has a row. Rows lie at an odd stride, so that the threads of a warp hit different
//          banks. No lane idles, whatever k is, and no warp sums.
//   _row   larger k: a warp has a row and reads it twice, the second time from a cache: first for
//          the maximum and the sum of exponentials together (the sum so far shrinks whenever the
//          maximum grows), four scores a lane and step, then to write.
#include "common.cuh"

constexpr int THREADS = 128;
constexpr int WARPS = THREADS / WARP;
// The most classes of which a tile holds whole rows.
constexpr int NARROW = 64;
// Rows of a block of the kernels in which a warp has a row; in the others a thread has one.
constexpr int ROWS = 32;

static_assert(WARPS == 4, "the sums of four warps are added in two steps");
static_assert(ROWS % WARPS == 0, "warps have as many rows each");
static_assert((THREADS & (THREADS - 1)) == 0, "sums are halved");
static_assert(THREADS * (NARROW | 1) * sizeof(float) <= PLAIN_SHARED, "one tile fits");

// The largest score of a row, and Σ exp(score − top) over it.
struct Peak {
    float top, sum;
};

// Floats from row to row of a tile: an odd number.
__device__ __forceinline__ int stride_of(int k) { return k | 1; }

// Calls each(number of the score, its place in the tile) for this thread's share of a tile's
// `count` scores.
template <class Each>
__device__ __forceinline__ void each_score(int count, int k, Each each) {
    int row = threadIdx.x / k, col = threadIdx.x % k;
    const int rows = THREADS / k, cols = THREADS % k;
#pragma unroll 4
    for (int i = threadIdx.x; i < count; i += THREADS) {
        each(i, row * stride_of(k) + col);
        row += rows;
        col += cols;
        if (col >= k) {
            col -= k;
            ++row;
        }
    }
}

__device__ __forceinline__ void load_tile(float* tile, const float* __restrict__ x, int count,
                                          int k) {
    each_score(count, k, [=](int i, int at) { tile[at] = x[i]; });
}

__device__ __forceinline__ void save_tile(float* __restrict__ x, const float* tile, int count,
                                          int k) {
    each_score(count, k, [=](int i, int at) { x[i] = tile[at]; });
}

// row = exp(row − top), computed by one thread; returns its peak.
__device__ __forceinline__ Peak exponentials(float* row, int k) {
    Peak peak = {row[0], 0.0f};
    for (int j = 1; j < k; ++j) peak.top = fmaxf(peak.top, row[j]);
    for (int j = 0; j < k; ++j) {
        row[j] = expf(row[j] - peak.top);
        peak.sum += row[j];
    }
    return peak;
}

// The peak of a row, returned in every lane of a warp. All 32 must call it.
__device__ __forceinline__ Peak peak_of(const float* row, int k) {
    // NOTE: top begins finite, since exp(−∞ − −∞) of a lane that has only padding would be NaN.
    Peak peak = {-1e30f, 0.0f};
    for (int first = threadIdx.x % 32; first < k; first += 128) {
        float v[4], top = peak.top;
#pragma unroll
        for (int i = 0; i < 4; ++i) v[i] = first + 32 * i < k ? row[first + 32 * i] : -INFINITY;
#pragma unroll
        for (int i = 0; i < 4; ++i) top = fmaxf(top, v[i]);
        peak.sum *= expf(peak.top - top);
#pragma unroll
        for (int i = 0; i < 4; ++i) peak.sum += expf(v[i] - top);
        peak.top = top;
    }
    const float top = warp_max(peak.top);
    return {top, warp_sum(peak.sum * expf(peak.top - top))};
}

// How many rows a block has that takes up to `most` from `first` on.
__device__ __forceinline__ int rows_here(size_t rows, size_t first, int most) {
    return rows - first < most ? static_cast<int>(rows - first) : most;
}

// x (rows, k) = its softmax. Blocks of THREADS rows; dynamic shared memory: a tile.
KERNEL(softmax_forward_tile, THREADS)(float* __restrict__ x, size_t rows, int k) {
    DYNAMIC_SHARED(float, tile);
    const size_t first = static_cast<size_t>(blockIdx.x) * THREADS;
    const int here = rows_here(rows, first, THREADS);
    x += first * k;
    load_tile(tile, x, here * k, k);
    __syncthreads();
    if (threadIdx.x < here) {
        float* const row = tile + threadIdx.x * stride_of(k);
        const float factor = 1.0f / exponentials(row, k).sum;
        for (int j = 0; j < k; ++j) row[j] *= factor;
    }
    __syncthreads();
    save_tile(x, tile, here * k, k);
}

// x (rows, k) = its softmax. Blocks of ROWS rows.
KERNEL(softmax_forward_row, THREADS)(float* __restrict__ x, size_t rows, int k) {
    const size_t first = static_cast<size_t>(blockIdx.x) * ROWS;
    const int here = rows_here(rows, first, ROWS);
    for (int r = threadIdx.x / 32; r < here; r += WARPS) {
        float* const row = x + (first + r) * k;
        const Peak peak = peak_of(row, k);
        const float factor = 1.0f / peak.sum;
        // Each lane writes what it alone read.
#pragma unroll 4
        for (int j = threadIdx.x % 32; j < k; j += 32) row[j] = expf(row[j] - peak.top) * factor;
    }
}

// dp = p∘(dp − Σ dp·p), both (rows, k). Blocks of THREADS rows; dynamic shared memory: a tile of
// each.
KERNEL(softmax_backward_tile, THREADS)(float* __restrict__ dp, const float* __restrict__ p,
                                       size_t rows, int k) {
    DYNAMIC_SHARED(float, tile);
    float* const other = tile + THREADS * stride_of(k);
    const size_t first = static_cast<size_t>(blockIdx.x) * THREADS;
    const int here = rows_here(rows, first, THREADS);
    dp += first * k;
    load_tile(tile, dp, here * k, k);
    load_tile(other, p + first * k, here * k, k);
    __syncthreads();
    if (threadIdx.x < here) {
        float* const slopes = tile + threadIdx.x * stride_of(k);
        const float* const shares = other + threadIdx.x * stride_of(k);
        float mean = 0.0f;
        for (int j = 0; j < k; ++j) mean += slopes[j] * shares[j];
        for (int j = 0; j < k; ++j) slopes[j] = shares[j] * (slopes[j] - mean);
    }
    __syncthreads();
    save_tile(dp, tile, here * k, k);
}

// dp = p∘(dp − Σ dp·p), both (rows, k). Blocks of ROWS rows.
KERNEL(softmax_backward_row, THREADS)(float* __restrict__ dp, const float* __restrict__ p,
                                      size_t rows, int k) {
    const size_t first = static_cast<size_t>(blockIdx.x) * ROWS;
    const int here = rows_here(rows, first, ROWS), lane = threadIdx.x % 32;
    for (int r = threadIdx.x / 32; r < here; r += WARPS) {
        float* const slopes = dp + (first + r) * k;
        const float* const shares = p + (first + r) * k;
        float mean = 0.0f;
#pragma unroll 4
        for (int j = lane; j < k; j += 32) mean += slopes[j] * shares[j];
        mean = warp_sum(mean);
#pragma unroll 4
        for (int j = lane; j < k; j += 32) slopes[j] = shares[j] * (slopes[j] - mean);
    }
}

// weighed (n) = Σ w[y] over the pixels of an image, NaN where the label store has no row for it. A
// block has an image.
KERNEL(softmax_weigh, THREADS)(float* __restrict__ weighed,
                               const unsigned short* __restrict__ labels,
                               const unsigned* __restrict__ index,
                               const float* __restrict__ weights, int images, int pixels, int k) {
    SHARED(float, sums, WARPS);
    const unsigned stored = index[blockIdx.x];
    float sum = 0.0f;
    if (stored < static_cast<unsigned>(images)) {
        labels += static_cast<size_t>(stored) * pixels;
#pragma unroll 4
        for (int i = threadIdx.x; i < pixels; i += THREADS)
            sum += labels[i] < k ? weights[labels[i]] : 0.0f;
    } else {
        sum = NAN;
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) weighed[blockIdx.x] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// share (1) = 1/Σ weighed (n), 0 where the sum is 0. One block.
KERNEL(softmax_share, THREADS)(float* __restrict__ share, const float* __restrict__ weighed,
                               int n) {
    SHARED(double, sums, THREADS);
    const int t = threadIdx.x;
    double sum = 0.0;
    for (int i = t; i < n; i += THREADS) sum += weighed[i];
    sums[t] = sum;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) sums[t] += sums[t + half];
    }
    if (t == 0) *share = sums[0] == 0.0 ? 0.0f : static_cast<float>(1.0 / sums[0]);
}

// The labels of an image; for an image that the store lacks those of the first, since its share is
// NaN.
__device__ __forceinline__ const unsigned short* labels_of(const unsigned short* labels,
                                                           unsigned stored, int images,
                                                           int pixels) {
    return labels +
           (stored < static_cast<unsigned>(images) ? static_cast<size_t>(stored) * pixels : 0);
}

// partial (1) = the sum of `loss` over the block's threads, which must all call it.
__device__ __forceinline__ void save_loss(float* partial, float* sums, float loss) {
    loss = warp_sum(loss);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = loss;
    __syncthreads();
    if (threadIdx.x == 0) *partial = (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// partial (n, blocks of an image) = Σ w[y]·ℓ; scores (n, pixels, k) become their gradient. Blocks
// (⌈pixels/THREADS⌉, n); dynamic shared memory: a tile.
KERNEL(softmax_loss_tile,
       THREADS)(float* __restrict__ partial, float* __restrict__ scores,
                const float* __restrict__ share, const unsigned short* __restrict__ labels,
                const unsigned* __restrict__ index, const float* __restrict__ weights, int images,
                int pixels, int k, float scale) {
    DYNAMIC_SHARED(float, tile);
    SHARED(float, sums, WARPS);
    const int image = blockIdx.y, first = blockIdx.x * THREADS;
    const int here = rows_here(pixels, first, THREADS);
    labels = labels_of(labels, index[image], images, pixels) + first;
    scores += (static_cast<size_t>(image) * pixels + first) * k;
    load_tile(tile, scores, here * k, k);
    __syncthreads();
    float loss = 0.0f;
    if (threadIdx.x < here) {
        float* const row = tile + threadIdx.x * stride_of(k);
        const int y = labels[threadIdx.x];
        if (y < k) {
            const float at_label = row[y], weight = weights[y];
            const Peak peak = exponentials(row, k);
            loss = weight * (logf(peak.sum) - (at_label - peak.top));
            const float slope = scale * (weight * *share), factor = slope / peak.sum;
            for (int j = 0; j < k; ++j) row[j] *= factor;
            row[y] -= slope;
        } else {
            for (int j = 0; j < k; ++j) row[j] = 0.0f;
        }
    }
    __syncthreads();
    save_tile(scores, tile, here * k, k);
    save_loss(partial + static_cast<size_t>(image) * gridDim.x + blockIdx.x, sums, loss);
}

// As softmax_loss_tile. Blocks (⌈pixels/ROWS⌉, n).
KERNEL(softmax_loss_row,
       THREADS)(float* __restrict__ partial, float* __restrict__ scores,
                const float* __restrict__ share, const unsigned short* __restrict__ labels,
                const unsigned* __restrict__ index, const float* __restrict__ weights, int images,
                int pixels, int k, float scale) {
    SHARED(float, sums, WARPS);
    const int image = blockIdx.y, first = blockIdx.x * ROWS, lane = threadIdx.x % 32;
    const int here = rows_here(pixels, first, ROWS);
    labels = labels_of(labels, index[image], images, pixels) + first;
    scores += (static_cast<size_t>(image) * pixels + first) * k;
    float loss = 0.0f;
    for (int r = threadIdx.x / 32; r < here; r += WARPS) {
        float* const row = scores + static_cast<size_t>(r) * k;
        const int y = labels[r];
        if (y < k) {
            const Peak peak = peak_of(row, k);
            const float weight = weights[y], slope = scale * (weight * *share),
                        factor = slope / peak.sum;
            // The lane that will write the label's score reads it.
            if (lane == y % 32) loss += weight * (logf(peak.sum) - (row[y] - peak.top));
#pragma unroll 4
            for (int j = lane; j < k; j += 32)
                row[j] = factor * expf(row[j] - peak.top) - (j == y ? slope : 0.0f);
        } else {
            for (int j = lane; j < k; j += 32) row[j] = 0.0f;
        }
    }
    save_loss(partial + static_cast<size_t>(image) * gridDim.x + blockIdx.x, sums, loss);
}

// losses (n) = share·Σ partial (n, parts). A warp has an image.
KERNEL(softmax_losses, THREADS)(float* __restrict__ losses, const float* __restrict__ partial,
                                const float* __restrict__ share, int n, int parts) {
    const int image = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (image >= n) return;
    float sum = 0.0f;
    for (int i = lane; i < parts; i += 32) sum += partial[static_cast<size_t>(image) * parts + i];
    sum = warp_sum(sum);
    if (lane == 0) losses[image] = sum * *share;
}
