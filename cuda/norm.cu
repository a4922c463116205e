// Batch norm + residual + ReLU of x (groups, rows, c), each group by statistics of its own, and its gradient.
//
//   z  = relu?(γ·(x − mean)·rstd + β + residual),  mean and rstd = 1/√(var + ε) of a channel over the rows of a group
//   dx = γ·rstd·(g − Σg/rows − x̂·Σ(g·x̂)/rows),  g = dz where z > 0,  x̂ = (x − mean)·rstd
//   dresidual = g,  dγ += Σ(g·x̂),  dβ += Σg
//
// Either way is a reduction over rows, a tiny kernel that adds its partials up in order, and one sweep. With T the bytes of x:
//
//   forward   stats reads T; apply reads T (+T residual), writes T                        3 T, with a residual 4 T
//   backward  reduce reads 3 T (dz, z, x), apply reads 3 T and writes T                   7 T, without ReLU 5 T
//             with a residual, reduce writes g to dresidual, and apply reads that instead
//             of dz and z                                                                 7 T, without ReLU 6 T
//
// Floor: those bytes at the memory's rate. Layer 1 of a ResNet-18 at 2×128 images of 80×80 (T = 210 MB of bf16): 0.15 ms
// forward, 0.34 ms backward at 4.3 TB/s. Both sweeps run through a block's rows backwards: what the reduction read last is still
// in the cache, which holds a quarter of T.
//
// Grids: (chunks of rows, tiles of channels, groups); partial (groups, chunks, 2, c). Channels are a multiple of 8.
#include "stats.cuh"

constexpr int THREADS = 256;

// partial = Σ(x − s) and Σ(x − s)², s the first row of the group: a mean far from zero does not eat the variance's digits.
KERNEL(norm_stats, THREADS)(float* __restrict__ partial, const act* __restrict__ x, int rows, int c, int chunk, int wide) {
    const Place at = place(THREADS, blockIdx.y, wide, c);
    F8 sum = {}, squares = {};
    if (at.inside) {
        const act* column = x + size_t(blockIdx.z) * rows * c + at.channel;
        const F8 shift = load8(column);
        const int end = min(int(blockIdx.x + 1) * chunk, rows);
#pragma unroll 4
        for (int row = blockIdx.x * chunk + at.lane; row < end; row += at.lanes) {
            const F8 v = load8(column + size_t(row) * c);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const float d = v.v[i] - shift.v[i];
                sum.v[i] += d;
                squares.v[i] = fmaf(d, d, squares.v[i]);
            }
        }
    }
    block_sums<THREADS>(partial + (size_t(blockIdx.z) * gridDim.x + blockIdx.x) * 2 * c, sum, squares, blockIdx.y, wide, c);
}

// Σ over chunks of partial (chunks, 2, c), of channel 4·blockIdx.x + threadIdx.x % 4, in every thread. f64, as there may be
// hundreds of chunks.
struct Totals {
    double first, second;
};
__device__ __forceinline__ Totals totals(const float* partial, int chunks, int c) {
    const int channel = blockIdx.x * 4 + threadIdx.x % 4, warp = threadIdx.x / 32;
    SHARED(double, shared, THREADS / 32 * 2 * 4);
    double first = 0.0, second = 0.0;
#pragma unroll 4
    for (int i = threadIdx.x / 4; i < chunks; i += THREADS / 4) {
        first += partial[size_t(i) * 2 * c + channel];
        second += partial[(size_t(i) * 2 + 1) * c + channel];
    }
#pragma unroll
    for (int step = 4; step < 32; step *= 2) {
        first += __shfl_xor_sync(0xffffffffu, first, step);
        second += __shfl_xor_sync(0xffffffffu, second, step);
    }
    __syncthreads();  // The last group's have been read.
    if (threadIdx.x % 32 < 4) {
        shared[warp * 8 + threadIdx.x % 4] = first;
        shared[warp * 8 + 4 + threadIdx.x % 4] = second;
    }
    __syncthreads();
    Totals sums = {0.0, 0.0};
    for (int i = 0; i < THREADS / 32; ++i) {
        sums.first += shared[i * 8 + threadIdx.x % 4];
        sums.second += shared[i * 8 + 4 + threadIdx.x % 4];
    }
    return sums;
}

// saved (groups, 2, c) = mean and rstd; running statistics moved towards each group's in turn; line (groups, 2, c) = what
// norm_apply needs. Grid: c / 4.
KERNEL(norm_finalize, THREADS)
(float* __restrict__ saved, float* __restrict__ running_mean, float* __restrict__ running_var, float* __restrict__ line,
 const float* __restrict__ partial, const act* __restrict__ x, const float* __restrict__ gamma, const float* __restrict__ beta,
 int groups, int rows, int c, int chunks, float eps, float momentum) {
    const int channel = blockIdx.x * 4 + threadIdx.x % 4;
    for (int g = 0; g < groups; ++g) {
        const Totals sums = totals(partial + size_t(g) * chunks * 2 * c, chunks, c);
        if (threadIdx.x >= 4) continue;
        const double n = rows, d = sums.first / n, raw = sums.second / n - d * d;
        // Rounding may leave it below zero. NOTE: not fmax, which would turn NaN into 0.
        const double var = raw < 0.0 ? 0.0 : raw;
        const float mean = float(double(to_float(x[size_t(g) * rows * c + channel])) + d);
        const float rstd = float(1.0 / sqrt(var + double(eps)));
        saved[2 * g * c + channel] = mean;
        saved[(2 * g + 1) * c + channel] = rstd;
        const Affine y = affine(mean, rstd, gamma[channel], beta[channel]);
        line[2 * g * c + channel] = y.scale;
        line[(2 * g + 1) * c + channel] = y.shift;
        // One row has no unbiased variance: it leaves the running one as it is.
        const float running = running_var[channel], unbiased = rows > 1 ? float(var * n / (n - 1.0)) : running;
        running_mean[channel] += momentum * (mean - running_mean[channel]);
        running_var[channel] = running + momentum * (unbiased - running);
    }
}

template <bool RESIDUAL>
__device__ __forceinline__ void apply(act* __restrict__ z, const act* __restrict__ x, const act* __restrict__ residual,
                                      const float* line, int rows, int c, int chunk, int wide, float floor) {
    const Place at = place(THREADS, blockIdx.y, wide, c);
    if (!at.inside) return;
    line += size_t(blockIdx.z) * 2 * c + at.channel;
    const F8 scale = load_floats(line), shift = load_floats(line + c);
    const size_t column = size_t(blockIdx.z) * rows * c + at.channel;
    const int first = blockIdx.x * chunk, end = min(first + chunk, rows);
#pragma unroll RESIDUAL ? 2 : 4
    for (int row = end - 1 - at.lane; row >= first; row -= at.lanes) {
        const size_t i = column + size_t(row) * c;
        F8 v = load8(x + i), r = {};
        if (RESIDUAL) r = load8(residual + i);
#pragma unroll
        for (int k = 0; k < 8; ++k) v.v[k] = max_nan(fmaf(v.v[k], scale.v[k], shift.v[k]) + r.v[k], floor);
        store8(z + i, v);
    }
}

// residual may be null.
KERNEL(norm_apply, THREADS)
(act* __restrict__ z, const act* __restrict__ x, const act* __restrict__ residual, const float* __restrict__ line, int rows,
 int c, int chunk, int wide, int relu) {
    const float floor = relu ? 0.0f : -INFINITY;
    if (residual) {
        apply<true>(z, x, residual, line, rows, c, chunk, wide, floor);
    } else {
        apply<false>(z, x, residual, line, rows, c, chunk, wide, floor);
    }
}

// dz where z > 0.
template <bool RELU>
__device__ __forceinline__ F8 masked(const act* __restrict__ dz, const act* __restrict__ z, size_t i) {
    F8 g = load8(dz + i);
    if (RELU) {
        const F8 open = load8(z + i);
#pragma unroll
        for (int k = 0; k < 8; ++k) g.v[k] = open.v[k] > 0.0f ? g.v[k] : 0.0f;
    }
    return g;
}

template <bool RELU, bool RESIDUAL>
__device__ __forceinline__ void reduce(F8& sum, F8& product, act* __restrict__ dresidual, const act* __restrict__ dz,
                                       const act* __restrict__ z, const act* __restrict__ x, const float* mean, const Place& at,
                                       int rows, int c, int chunk) {
    const F8 centre = load_floats(mean + at.channel);
    const size_t column = size_t(blockIdx.z) * rows * c + at.channel;
    const int end = min(int(blockIdx.x + 1) * chunk, rows);
#pragma unroll 2
    for (int row = blockIdx.x * chunk + at.lane; row < end; row += at.lanes) {
        const size_t i = column + size_t(row) * c;
        const F8 g = masked<RELU>(dz, z, i), v = load8(x + i);
        if (RESIDUAL) store8(dresidual + i, g);
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            sum.v[k] += g.v[k];
            product.v[k] = fmaf(g.v[k], v.v[k] - centre.v[k], product.v[k]);
        }
    }
}

// partial = Σg and Σ g·(x − mean); dresidual = g. dresidual and z may be null: no residual, no ReLU.
KERNEL(norm_backward_reduce, THREADS)
(float* __restrict__ partial, act* __restrict__ dresidual, const act* __restrict__ dz, const act* __restrict__ z,
 const act* __restrict__ x, const float* __restrict__ saved, int rows, int c, int chunk, int wide) {
    const Place at = place(THREADS, blockIdx.y, wide, c);
    const float* mean = saved + size_t(blockIdx.z) * 2 * c;
    F8 sum = {}, product = {};
    if (!at.inside) {
        // Nothing to add, but a barrier to come to.
    } else if (z && dresidual) {
        reduce<true, true>(sum, product, dresidual, dz, z, x, mean, at, rows, c, chunk);
    } else if (z) {
        reduce<true, false>(sum, product, nullptr, dz, z, x, mean, at, rows, c, chunk);
    } else if (dresidual) {
        reduce<false, true>(sum, product, dresidual, dz, nullptr, x, mean, at, rows, c, chunk);
    } else {
        reduce<false, false>(sum, product, nullptr, dz, nullptr, x, mean, at, rows, c, chunk);
    }
    block_sums<THREADS>(partial + (size_t(blockIdx.z) * gridDim.x + blockIdx.x) * 2 * c, sum, product, blockIdx.y, wide, c);
}

// dgamma and dbeta +=, group after group; line (groups, 4, c): dx = g·line[0] + x·line[1] + line[2], and line[3] is the shift of
// the forward's γ·x̂ + β, where beta is given (the stem has no z to ask). Grid: c / 4.
KERNEL(norm_backward_finalize, THREADS)
(float* __restrict__ dgamma, float* __restrict__ dbeta, float* __restrict__ line, const float* __restrict__ partial,
 const float* __restrict__ saved, const float* __restrict__ gamma, const float* __restrict__ beta, int groups, int rows, int c,
 int chunks) {
    const int channel = blockIdx.x * 4 + threadIdx.x % 4;
    for (int g = 0; g < groups; ++g, line += 4 * c) {
        const Totals sums = totals(partial + size_t(g) * chunks * 2 * c, chunks, c);
        if (threadIdx.x >= 4) continue;
        const float mean = saved[2 * g * c + channel], rstd = saved[(2 * g + 1) * c + channel];
        const double n = rows, along = sums.second * rstd;
        dbeta[channel] += float(sums.first);
        dgamma[channel] += float(along);
        const Affine y = affine(mean, rstd, gamma[channel], beta ? beta[channel] : 0.0f);
        const double slope = -double(y.scale) * rstd * along / n;
        line[channel] = y.scale;
        line[c + channel] = float(slope);
        line[2 * c + channel] = float(-double(y.scale) * sums.first / n - slope * mean);
        line[3 * c + channel] = y.shift;
    }
}

template <bool RELU>
__device__ __forceinline__ void backward(act* __restrict__ dx, const act* __restrict__ dz, const act* __restrict__ z,
                                         const act* __restrict__ x, const float* line, int rows, int c, int chunk, int wide) {
    const Place at = place(THREADS, blockIdx.y, wide, c);
    if (!at.inside) return;
    line += size_t(blockIdx.z) * 4 * c + at.channel;
    const F8 a = load_floats(line), b = load_floats(line + c), s = load_floats(line + 2 * c);
    const size_t column = size_t(blockIdx.z) * rows * c + at.channel;
    const int first = blockIdx.x * chunk, end = min(first + chunk, rows);
#pragma unroll 2
    for (int row = end - 1 - at.lane; row >= first; row -= at.lanes) {
        const size_t i = column + size_t(row) * c;
        F8 g = masked<RELU>(dz, z, i);
        const F8 v = load8(x + i);
#pragma unroll
        for (int k = 0; k < 8; ++k) g.v[k] = fmaf(a.v[k], g.v[k], fmaf(b.v[k], v.v[k], s.v[k]));
        store8(dx + i, g);
    }
}

// z may be null: dz is the gradient as it is.
KERNEL(norm_backward_apply, THREADS)
(act* __restrict__ dx, const act* __restrict__ dz, const act* __restrict__ z, const act* __restrict__ x,
 const float* __restrict__ line, int rows, int c, int chunk, int wide) {
    if (z) {
        backward<true>(dx, dz, z, x, line, rows, c, chunk, wide);
    } else {
        backward<false>(dx, dz, z, x, line, rows, c, chunk, wide);
    }
}

// Eval mode as weights: folded (k, per) = w·γ/√(running_var + ε), bias (k) = β − running_mean·γ/√(…). One block an output
// channel; reads and writes the weights once (22 MB each in bf16 for a ResNet-18), before an evaluation.
KERNEL(norm_fold, THREADS)
(act* __restrict__ folded, act* __restrict__ bias, const act* __restrict__ w, const float* __restrict__ gamma,
 const float* __restrict__ beta, const float* __restrict__ running_mean, const float* __restrict__ running_var, int per,
 float eps) {
    const int k = blockIdx.x;
    const Affine y = affine(running_mean[k], 1.0f / sqrtf(running_var[k] + eps), gamma[k], beta[k]);
    if (threadIdx.x == 0) bias[k] = to_act(y.shift);
    for (int i = threadIdx.x; i < per; i += THREADS) {
        folded[size_t(k) * per + i] = to_act(to_float(w[size_t(k) * per + i]) * y.scale);
    }
}
