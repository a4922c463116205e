// Batch norm of x (groups, rows, c), each group by statistics of its own, with the residual and the
// ReLU that follow it in a network, and its gradient.
//
//   z = relu?(γ·x̂ + β + residual),  x̂ = (x − mean)·rstd, with mean and rstd = 1/√(var + ε) of a
//   channel over the rows of a group
//   dx = γ·rstd·(g − Σg/rows − x̂·Σ(g·x̂)/rows),  g = dz where z > 0
//   dresidual = g,  dγ += Σ(g·x̂),  dβ += Σg
//
// Forward and backward are a reduction over rows, a tiny kernel that adds the partial sums up in
// order, and one sweep. With T the bytes of x:
//
//   forward   stats reads T; apply reads T and writes T                               3 T
//             with a residual, apply reads that too                                   4 T
//   backward  reduce reads dz and x, 2 T; apply reads the same and writes dx          5 T
//             with a residual, reduce also writes g to dresidual, and apply reads
//             that instead of dz                                                      6 T
//             with a residual and a ReLU, reduce reads z as well                      7 T
//
// Behind a ReLU without a residual z is not read: where it is above zero follows from x, which is
// read anyway, by the forward's own arithmetic.
//
// Floor: those bytes at the memory's rate. Layer 1 of a ResNet-18 at 2×128 images of 80×80 (T = 210
// MB of bf16): 0.15 ms forward, 0.24 ms backward at 4.3 TB/s, 0.2 and 0.34 with a residual. The
// memory keeps pace if 32 KiB and more are on their way to a multiprocessor, so that a thread loads
// several rows before it uses one. Both sweeps run through a block's rows backwards: what the
// reduction read last is still in the cache, which holds a quarter of T.
//
// Grids: (chunks of rows, tiles of channels, groups); partial (groups, chunks, 2, c). Channels are
// a multiple of VECTOR.
#include "stats.cuh"

constexpr int THREADS = 256;
// A block's rows are a multiple of DEPTH for each of its threads.
constexpr int DEPTH = 4;
// Blocks on a multiprocessor, forward and backward: the grid is one wave on an H100. The backward
// has three, since a thread keeps 40 numbers of its channels beside what it loads.
constexpr int RESIDENT = 4, RESIDENT_BACK = 3;
// Channels of a block of the finalizing kernels.
constexpr int FINALIZED = 4;

static_assert(THREADS % WARP == 0 && WARP % FINALIZED == 0, "warps have all channels of a block");
static_assert((FINALIZED & (FINALIZED - 1)) == 0, "lanes of a channel are summed by halves");
static_assert(VECTOR % FINALIZED == 0, "channels are a multiple of a block's");

// Rows that a thread has in flight where it reads so many maps: 64 bytes and more.
__host__ __device__ constexpr int in_flight(int maps) {
    return (maps == 1 ? DEPTH : DEPTH / 2) * 2 / int(sizeof(act));
}
static_assert(in_flight(2) >= 1 && DEPTH % in_flight(1) == 0, "chunks are cut for it");

// partial = Σ(x − s) and Σ(x − s)², where s is the first row of the group: a mean far from zero
// does not eat the variance's digits.
KERNEL(norm_stats, THREADS, RESIDENT)(float* __restrict__ partial, const act* __restrict__ x,
                                      int rows, int c, int chunk, int wide) {
    const Place at = place(THREADS, blockIdx.y, wide, c);
    F8 sum = {}, squares = {};
    if (at.inside) {
        const act* column = x + size_t(blockIdx.z) * rows * c + at.channel;
        const F8 shift = load8(column);
        const int end = min(int(blockIdx.x + 1) * chunk, rows);
        for_rows<in_flight(1)>(
            int(blockIdx.x) * chunk + at.lane, end, at.lanes,
            [&](int row) { return load_pack(column + size_t(row) * c); },
            [&](int, const Pack<8>& pack) {
                const F8 v = unpack(pack);
#pragma unroll
                for (int i = 0; i < VECTOR; ++i) {
                    const float d = v.v[i] - shift.v[i];
                    sum.v[i] += d;
                    squares.v[i] = fmaf(d, d, squares.v[i]);
                }
            });
    }
    block_sums<THREADS>(partial + (size_t(blockIdx.z) * gridDim.x + blockIdx.x) * 2 * c, sum,
                        squares, blockIdx.y, wide, c);
}

// Two sums over the chunks of partial (chunks, 2, c).
struct Totals {
    double first, second;
};

// The channel that this thread of a finalizing kernel has.
__device__ __forceinline__ int my_channel() {
    return blockIdx.x * FINALIZED + threadIdx.x % FINALIZED;
}

// The sums of my_channel(), returned in every thread. In f64, as there may be hundreds of chunks.
__device__ __forceinline__ Totals totals(const float* partial, int chunks, int c) {
    const int channel = my_channel(), warp = threadIdx.x / WARP;
    const int mine = threadIdx.x % FINALIZED;
    SHARED(double, shared, THREADS / WARP * 2 * FINALIZED);
    // Each thread its chunks, then each warp its threads, then all warps.
    double first = 0.0, second = 0.0;
#pragma unroll 4
    for (int i = threadIdx.x / FINALIZED; i < chunks; i += THREADS / FINALIZED) {
        first += partial[size_t(i) * 2 * c + channel];
        second += partial[(size_t(i) * 2 + 1) * c + channel];
    }
#pragma unroll
    for (int step = FINALIZED; step < WARP; step *= 2) {
        first += __shfl_xor_sync(ALL_LANES, first, step);
        second += __shfl_xor_sync(ALL_LANES, second, step);
    }
    // The sums of the group before have been read.
    __syncthreads();
    if (threadIdx.x % WARP < FINALIZED) {
        shared[warp * 2 * FINALIZED + mine] = first;
        shared[(warp * 2 + 1) * FINALIZED + mine] = second;
    }
    __syncthreads();
    Totals sums = {0.0, 0.0};
    for (int i = 0; i < THREADS / WARP; ++i) {
        sums.first += shared[i * 2 * FINALIZED + mine];
        sums.second += shared[(i * 2 + 1) * FINALIZED + mine];
    }
    return sums;
}

// saved (groups, 2, c) = mean and rstd; running statistics are moved towards each group's in turn;
// line (groups, 2, c) = scale and shift of γ·x̂ + β, which norm_apply needs. Grid: c / FINALIZED.
KERNEL(norm_finalize, THREADS)
(float* __restrict__ saved, float* __restrict__ running_mean, float* __restrict__ running_var,
 float* __restrict__ line, const float* __restrict__ partial, const act* __restrict__ x,
 const float* __restrict__ gamma, const float* __restrict__ beta, int groups, int rows, int c,
 int chunks, float eps, float momentum) {
    const int channel = my_channel();
    for (int g = 0; g < groups; ++g) {
        const Totals sums = totals(partial + size_t(g) * chunks * 2 * c, chunks, c);
        if (threadIdx.x >= FINALIZED) continue;
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
        const float running = running_var[channel],
                    unbiased = rows > 1 ? float(var * n / (n - 1.0)) : running;
        running_mean[channel] += momentum * (mean - running_mean[channel]);
        running_var[channel] = running + momentum * (unbiased - running);
    }
}

// A thread's part of norm_apply; `floor` is 0 with a ReLU, else −∞.
template <bool RESIDUAL>
__device__ __forceinline__ void apply(act* __restrict__ z, const act* __restrict__ x,
                                      const act* __restrict__ residual, const float* line, int rows,
                                      int c, int chunk, int wide, float floor) {
    const Place at = place(THREADS, blockIdx.y, wide, c);
    if (!at.inside) return;
    line += size_t(blockIdx.z) * 2 * c + at.channel;
    const F8 scale = load_floats(line), shift = load_floats(line + c);
    const size_t column = size_t(blockIdx.z) * rows * c + at.channel;
    const int first = blockIdx.x * chunk, end = min(first + chunk, rows);
    // The i-th row from the end.
    const auto place_of = [&](int i) { return column + size_t(end - 1 - i) * c; };
    struct Loaded {
        Pack<8> x, residual;
    };
    for_rows<in_flight(RESIDUAL ? 2 : 1)>(
        at.lane, end - first, at.lanes,
        [&](int i) {
            Loaded row = {load_pack(x + place_of(i)), {}};
            if (RESIDUAL) row.residual = load_pack(residual + place_of(i));
            return row;
        },
        [&](int i, const Loaded& row) {
            F8 v = unpack(row.x), r = {};
            if (RESIDUAL) r = unpack(row.residual);
#pragma unroll
            for (int k = 0; k < VECTOR; ++k)
                v.v[k] = max_nan(fmaf(v.v[k], scale.v[k], shift.v[k]) + r.v[k], floor);
            store8(z + place_of(i), v);
        });
}

// z = relu?(x·scale + shift + residual), scale and shift from line (groups, 2, c).
KERNEL(norm_apply, THREADS, RESIDENT)
(act* __restrict__ z, const act* __restrict__ x, Maybe<const act> __restrict__ residual,
 const float* __restrict__ line, int rows, int c, int chunk, int wide, bool relu) {
    const float floor = relu ? 0.0f : -INFINITY;
    if (residual) {
        apply<true>(z, x, residual, line, rows, c, chunk, wide, floor);
    } else {
        apply<false>(z, x, residual, line, rows, c, chunk, wide, floor);
    }
}

// What tells where a ReLU lets the gradient through: there is none, x, or z.
enum Gate { OPEN, BY_X, BY_Z };

// Whether the forward stored a positive z of x. NOTE: the same multiply-add as norm_apply's, so that
// no gradient flows where z is zero; false where it is NaN, as z > 0 is.
__device__ __forceinline__ bool opens(float x, float scale, float shift) {
    return fmaf(x, scale, shift) > STORED_AS_ZERO;
}

// A thread's part of norm_backward_reduce. `scale` and `shift` are read BY_X alone.
template <Gate GATE, bool RESIDUAL>
__device__ __forceinline__ void reduce(F8& sum, F8& product, act* __restrict__ dresidual,
                                       const act* __restrict__ dz, const act* __restrict__ z,
                                       const act* __restrict__ x, const F8& centre, const F8& scale,
                                       const F8& shift, size_t column, int first, int end, int step,
                                       int c) {
    struct Loaded {
        Pack<8> dz, x, z;
    };
    for_rows<in_flight(2)>(
        first, end, step,
        [&](int i) {
            const size_t at = column + size_t(i) * c;
            Loaded row = {load_pack(dz + at), load_pack(x + at), {}};
            if (GATE == BY_Z) row.z = load_pack(z + at);
            return row;
        },
        [&](int i, const Loaded& row) {
            F8 g = unpack(row.dz), open = {};
            const F8 v = unpack(row.x);
            if (GATE == BY_Z) open = unpack(row.z);
#pragma unroll
            for (int k = 0; k < VECTOR; ++k) {
                if (GATE == BY_Z) g.v[k] = open.v[k] > 0.0f ? g.v[k] : 0.0f;
                if (GATE == BY_X) g.v[k] = opens(v.v[k], scale.v[k], shift.v[k]) ? g.v[k] : 0.0f;
                sum.v[k] += g.v[k];
                product.v[k] = fmaf(g.v[k], v.v[k] - centre.v[k], product.v[k]);
            }
            if (RESIDUAL) store8(dresidual + column + size_t(i) * c, g);
        });
}

// partial = Σg and Σ g·(x − mean); dresidual = g. Without a residual dresidual is null. A ReLU is
// known by z behind a residual, else by beta; both are null without one.
KERNEL(norm_backward_reduce, THREADS, RESIDENT_BACK)
(float* __restrict__ partial, Maybe<act> __restrict__ dresidual, const act* __restrict__ dz,
 Maybe<const act> __restrict__ z, const act* __restrict__ x, const float* __restrict__ saved,
 const float* __restrict__ gamma, Maybe<const float> __restrict__ beta, int rows, int c, int chunk,
 int wide) {
    const Place at = place(THREADS, blockIdx.y, wide, c);
    const size_t column = size_t(blockIdx.z) * rows * c + at.channel;
    const int first = int(blockIdx.x) * chunk + at.lane, step = at.lanes,
              end = min(int(blockIdx.x + 1) * chunk, rows);
    F8 sum = {}, product = {};
    if (at.inside) {
        saved += size_t(blockIdx.z) * 2 * c + at.channel;
        const F8 mean = load_floats(saved);
        F8 scale = {}, shift = {};
        if (z) {
            reduce<BY_Z, true>(sum, product, dresidual, dz, z, x, mean, scale, shift, column, first,
                               end, step, c);
        } else if (dresidual) {
            reduce<OPEN, true>(sum, product, dresidual, dz, z, x, mean, scale, shift, column, first,
                               end, step, c);
        } else if (beta) {
            const F8 rstd = load_floats(saved + c), g = load_floats(gamma + at.channel),
                     b = load_floats(beta + at.channel);
#pragma unroll
            for (int k = 0; k < VECTOR; ++k) {
                const Affine y = affine(mean.v[k], rstd.v[k], g.v[k], b.v[k]);
                scale.v[k] = y.scale;
                shift.v[k] = y.shift;
            }
            reduce<BY_X, false>(sum, product, dresidual, dz, z, x, mean, scale, shift, column,
                                first, end, step, c);
        } else {
            reduce<OPEN, false>(sum, product, dresidual, dz, z, x, mean, scale, shift, column,
                                first, end, step, c);
        }
    }
    block_sums<THREADS>(partial + (size_t(blockIdx.z) * gridDim.x + blockIdx.x) * 2 * c, sum,
                        product, blockIdx.y, wide, c);
}

// dgamma and dbeta +=, group after group; line (groups, 4, c) are the coefficients of dx =
// g·line[0] + x·line[1] + line[2], and line[3] is the shift of the forward's γ·x̂ + β where beta is
// given: a ReLU that is known by x. Grid: c / FINALIZED.
KERNEL(norm_backward_finalize, THREADS)
(float* __restrict__ dgamma, float* __restrict__ dbeta, float* __restrict__ line,
 const float* __restrict__ partial, const float* __restrict__ saved,
 const float* __restrict__ gamma, Maybe<const float> __restrict__ beta, int groups, int rows, int c,
 int chunks) {
    const int channel = my_channel();
    for (int g = 0; g < groups; ++g, line += 4 * c) {
        const Totals sums = totals(partial + size_t(g) * chunks * 2 * c, chunks, c);
        if (threadIdx.x >= FINALIZED) continue;
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

// A thread's part of norm_backward_apply.
template <Gate GATE>
__device__ __forceinline__ void backward(act* __restrict__ dx, const act* __restrict__ dz,
                                         const act* __restrict__ x, const float* line, int rows,
                                         int c, int chunk, int wide) {
    const Place at = place(THREADS, blockIdx.y, wide, c);
    if (!at.inside) return;
    line += size_t(blockIdx.z) * 4 * c + at.channel;
    const F8 scale = load_floats(line), slope = load_floats(line + c),
             offset = load_floats(line + 2 * c);
    F8 shift = {};
    if (GATE == BY_X) shift = load_floats(line + 3 * c);
    const size_t column = size_t(blockIdx.z) * rows * c + at.channel;
    const int first = blockIdx.x * chunk, end = min(first + chunk, rows);
    // The i-th row from the end.
    const auto place_of = [&](int i) { return column + size_t(end - 1 - i) * c; };
    struct Loaded {
        Pack<8> dz, x;
    };
    for_rows<in_flight(2)>(
        at.lane, end - first, at.lanes,
        [&](int i) { return Loaded{load_pack(dz + place_of(i)), load_pack(x + place_of(i))}; },
        [&](int i, const Loaded& row) {
            F8 g = unpack(row.dz);
            const F8 v = unpack(row.x);
#pragma unroll
            for (int k = 0; k < VECTOR; ++k) {
                if (GATE == BY_X) g.v[k] = opens(v.v[k], scale.v[k], shift.v[k]) ? g.v[k] : 0.0f;
                g.v[k] = fmaf(scale.v[k], g.v[k], fmaf(slope.v[k], v.v[k], offset.v[k]));
            }
            store8(dx + place_of(i), g);
        });
}

// dx = g·line[0] + x·line[1] + line[2], line (groups, 4, c); g is dz, with `relu` where x·line[0] +
// line[3], the forward's z, is above zero.
KERNEL(norm_backward_apply, THREADS, RESIDENT_BACK)
(act* __restrict__ dx, const act* __restrict__ dz, const act* __restrict__ x,
 const float* __restrict__ line, int rows, int c, int chunk, int wide, bool relu) {
    if (relu) {
        backward<BY_X>(dx, dz, x, line, rows, c, chunk, wide);
    } else {
        backward<OPEN>(dx, dz, x, line, rows, c, chunk, wide);
    }
}

// Batch norm of evaluation as weights of the convolution before it: folded (k, per) =
// w·γ/√(running_var + ε), bias (k) = β − running_mean·γ/√(running_var + ε). A block has an output
// channel; reads and writes the weights once (22 MB each in bf16 for a ResNet-18), before an
// evaluation.
KERNEL(norm_fold, THREADS)
(act* __restrict__ folded, act* __restrict__ bias, const act* __restrict__ w,
 const float* __restrict__ gamma, const float* __restrict__ beta,
 const float* __restrict__ running_mean, const float* __restrict__ running_var, int per,
 float eps) {
    const int k = blockIdx.x;
    const Affine y = affine(running_mean[k], 1.0f / sqrtf(running_var[k] + eps), gamma[k], beta[k]);
    if (threadIdx.x == 0) bias[k] = to_act(y.shift);
    for (int i = threadIdx.x; i < per; i += THREADS) {
        folded[size_t(k) * per + i] = to_act(to_float(w[size_t(k) * per + i]) * y.scale);
    }
}
