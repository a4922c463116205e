// IIC's dense mutual-information loss and its gradient: src/device/ops/iic.rs says what is
// computed.
//
// The joint matrix Q of each of (2t + 1)² shifts is a sum of correlations of the coarse maps at L
// lags δ, taken for each class of pairs of rows and of columns (the first, those between, the
// last):
//
//   C_δ[a,b] = Σ x1[n,p,a]·x2[n,p−δ,b]             iic_lags, iic_lags_edge, in iic_lags.cu
//   Q_s = Σ K_sy·K_sx·C                            iic_mix, by columns, then by rows
//   the loss of each Q and its gradient            iic_mutual
//   dC = Σ K_sy·K_sx·dQ_s                          iic_mix, by rows, then by columns
//   dx1[n,p,a] = Σ_δ Σ_b dC_δ[a,b]·x2[n,p−δ,b]     iic_grad, iic_grad_edge, in
//   dx2[n,q,a] = Σ_δ Σ_b dC_δ[a,b]·x1[n,q+δ,b]     iic_gradient.cu
//
// dQ is symmetric, and so is dC.
//
// The maps are read for the correlations and for the gradient, which is written: 3·22 MB for 60
// pairs of 32×32 maps of 45 classes, 15 µs. What counts are three passes of n·k²·Σ_δ pairs = 8.7e9
// multiply-adds, by tensor cores, each number in two bf16 parts (mma.cuh): three products, of 48
// classes in the place of 45, are 45 million mma, 0.31 ms at 1.6 cycles each on 132
// multiprocessors. (The definition, at full resolution, has 100 times as many.) Pairs with a column
// at the border, a sixteenth at 32 columns, are left to the f32 units: their lags share no tiles.
#include "iic.cuh"

// Entries of P and of its marginals that are smaller count as this number, which has no gradient.
constexpr double EPS = 2.220446049250313e-16;

// The weight of pixel p in row y of the up-sampled map.
__device__ __forceinline__ double tent(int len, int up, int y, int p) {
    const double at = fmin(fmax((y + 0.5) / up - 0.5, 0.0), len - 1.0);
    return fmax(1.0 - fabs(at - p), 0.0);
}

constexpr int TABLE_THREADS = 64;

// table (shifts, lags, classes) = K of an axis: Σ_y U[y + s, p]·U[y, q], summed over all shifts
// where `shifts` is 1. A thread has one number.
KERNEL(iic_table, TABLE_THREADS)(float* __restrict__ table, int len, int up, int t, int radius,
                                 int shifts) {
    const int i = blockIdx.x * TABLE_THREADS + threadIdx.x, lags = 2 * radius + 1;
    if (i >= shifts * lags * CLASSES) return;
    const int shift = i / (lags * CLASSES), j = i / CLASSES % lags;
    const Pairs pair = pairs_of(len, radius - j, i % CLASSES);
    const int side = len * up, from = shifts == 1 ? -t : shift - t,
              to = shifts == 1 ? t : shift - t;
    // Outside of these rows the tent of q is zero.
    const int first = up * (pair.q > 0 ? pair.q - 1 : 0), last = min(side, up * (pair.q + 2));
    double sum = 0.0;
    for (int s = from; s <= to && pair.count > 0; ++s) {
        for (int y = first; y < last; ++y) {
            if (y + s >= 0 && y + s < side)
                sum += tent(len, up, y + s, pair.p) * tent(len, up, y, pair.q);
        }
    }
    table[i] = static_cast<float>(sum);
}

constexpr int THREADS = 256;

static_assert(THREADS % WARP == 0 && (THREADS & (THREADS - 1)) == 0, "sums are halved");

// The inner class of c = Σ of its chunks in part. blockIdx.x counts entries of the matrix (`square`
// of them), blockIdx.y lags of rows and of columns.
KERNEL(iic_add, THREADS)(float* __restrict__ c, const float* __restrict__ part, int chunks,
                         int lags, int lx, int square) {
    const int e = blockIdx.x * THREADS + threadIdx.x, jy = blockIdx.y / lx, jx = blockIdx.y % lx;
    if (e >= square) return;
    float sum = 0.0f;
    for (int i = 0; i < chunks; ++i)
        sum += part[(static_cast<size_t>(i) * lags + blockIdx.y) * square + e];
    const int matrix = (jy * CLASSES + INNER) * lx * CLASSES + jx * CLASSES + INNER;
    c[static_cast<size_t>(matrix) * square + e] = sum;
}

// Outputs that a thread of iic_mix has.
constexpr int OUTS = 8;

// out (batch, outs, len) = Σ_i table[o·by_out + i·by_in]·in (batch, ins, len). Blocks
// (⌈len/THREADS⌉, ⌈outs/OUTS⌉, batch).
KERNEL(iic_mix, THREADS)(float* __restrict__ out, const float* __restrict__ input,
                         const float* __restrict__ table, int len, int outs, int ins, int by_out,
                         int by_in) {
    const int e = blockIdx.x * THREADS + threadIdx.x, first = blockIdx.y * OUTS;
    if (e >= len) return;
    input += static_cast<size_t>(blockIdx.z) * ins * len + e;
    out += (static_cast<size_t>(blockIdx.z) * outs + first) * len + e;
    float acc[OUTS] = {};
    for (int i = 0; i < ins; ++i) {
        const float x = input[static_cast<size_t>(i) * len];
#pragma unroll
        for (int o = 0; o < OUTS; ++o) {
            if (first + o < outs) acc[o] += table[(first + o) * by_out + i * by_in] * x;
        }
    }
#pragma unroll
    for (int o = 0; o < OUTS; ++o) {
        if (first + o < outs) out[static_cast<size_t>(o) * len] = acc[o];
    }
}

// warp_sum in f64.
__device__ __forceinline__ double warp_sum_double(double x) {
#pragma unroll
    for (int step = WARP / 2; step > 0; step >>= 1) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

// Numbers of shared memory that iic_mutual has for each row of a matrix, and the most rows.
constexpr int ROW = 5;
constexpr int MOST = PLAIN_SHARED / (ROW * sizeof(double));

static_assert(MOST * ROW * sizeof(double) <= PLAIN_SHARED, "a matrix of MOST rows fits");

// joint (shifts, k, k) holds Q of each shift and gets rate · its gradient; losses (shifts) = what
// each shift adds to the loss, before its share. A block has a shift, a warp a row; dynamic shared
// memory: ROW·k doubles. In f64, because loss and gradient are what is left of logarithms that
// cancel.
//
// With P and its marginals clamped, G = −(log P + 1) + λ·(log p_a + log p_b), 0 where P was below
// EPS, plus λ·(Σ_b P)/p_a and the same for b; the gradient of Q is (G − ⟨G, P⟩)/ΣQ, without the
// mean where the normaliser is constant, as when all shifts are `collapsed` into one matrix.
KERNEL(iic_mutual, THREADS)(float* joint, double* __restrict__ losses, int k, float lambda,
                            float rate, bool collapsed) {
    DYNAMIC_SHARED(double, room);
    double *marginal = room, *log_of = room + k, *slope_of = room + 2 * k, *loss_of = room + 3 * k,
           *mean_of = room + 4 * k;
    const int t = threadIdx.x, warp = t / 32, lane = t % 32;
    float* q = joint + static_cast<size_t>(blockIdx.x) * k * k;
    // Marginals: P is (Q + Qᵀ)/2ΣQ.
    for (int a = warp; a < k; a += THREADS / WARP) {
        double sum = 0.0;
        for (int b = lane; b < k; b += 32) sum += static_cast<double>(q[a * k + b]) + q[b * k + a];
        sum = warp_sum_double(sum);
        if (lane == 0) marginal[a] = sum;
    }
    __syncthreads();
    double twice = 0.0;
    for (int a = 0; a < k; ++a) twice += marginal[a];
    __syncthreads();
    for (int a = t; a < k; a += THREADS) {
        marginal[a] /= twice;
        log_of[a] = lambda * log(fmax(marginal[a], EPS));
    }
    __syncthreads();
    // The loss, and the mean ⟨G, P⟩, row by row.
    for (int a = warp; a < k; a += THREADS / WARP) {
        double loss = 0.0, mean = 0.0, sum = 0.0;
        for (int b = lane; b < k; b += 32) {
            const double p = (static_cast<double>(q[a * k + b]) + q[b * k + a]) / twice,
                         clamped = fmax(p, EPS);
            const double gain = log(clamped) - log_of[a] - log_of[b];
            loss -= clamped * gain;
            if (p >= EPS) mean -= p * (gain + 1.0);
            sum += clamped;
        }
        loss = warp_sum_double(loss);
        mean = warp_sum_double(mean);
        sum = warp_sum_double(sum);
        if (lane == 0) {
            slope_of[a] = marginal[a] < EPS ? 0.0 : lambda * sum / marginal[a];
            loss_of[a] = loss;
            mean_of[a] = mean + 2.0 * marginal[a] * slope_of[a];
        }
    }
    __syncthreads();
    double loss = 0.0, mean = 0.0;
    for (int a = 0; a < k; ++a) {
        loss += loss_of[a];
        mean += mean_of[a];
    }
    if (collapsed) mean = 0.0;
    if (t == 0) losses[blockIdx.x] = loss;
    const double scale = rate / (0.5 * twice);
    // The gradient. Entries (a, b) and (b, a) belong to one thread.
    for (int e = t; e < k * k; e += THREADS) {
        const int a = e / k, b = e % k;
        if (b > a) continue;
        const double p = (static_cast<double>(q[a * k + b]) + q[b * k + a]) / twice;
        const double own = p < EPS ? 0.0 : -(log(p) - log_of[a] - log_of[b] + 1.0);
        const float gradient = static_cast<float>(scale * (own + slope_of[a] + slope_of[b] - mean));
        q[a * k + b] = gradient;
        q[b * k + a] = gradient;
    }
}

// loss (1) = share · Σ losses (shifts). One block.
KERNEL(iic_loss, THREADS)(float* __restrict__ loss, const double* __restrict__ losses, int shifts,
                          float share) {
    SHARED(double, sums, THREADS);
    const int t = threadIdx.x;
    double sum = 0.0;
    for (int i = t; i < shifts; i += THREADS) sum += losses[i];
    sums[t] = sum;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) sums[t] += sums[t + half];
    }
    if (t == 0) *loss = static_cast<float>(share * sums[0]);
}
