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
//             and where a backward follows its ReLU, writes a bit an element          4.1 T
//   backward  reduce reads dz and x, 2 T; apply reads the same and writes dx          5 T
//             with a residual, reduce also writes g to dresidual, and apply reads
//             that instead of dz                                                      6 T
//             with a residual and a ReLU, reduce reads the bits as well               6.1 T
//
// Behind a ReLU without a residual there are no bits: where z is above zero follows from x, which
// is read anyway, by the forward's own arithmetic.
//
// A residual that is a norm of another map x' (the downsampling of a block) is normalised on its
// way: x' is read once for its statistics and once by apply, 5.1 T in all. Backward, reduce_two
// reads dz, x, x' and the bits, apply_two the same, and writes dx and dx': 8.1 T, where two norms
// one after the other move 7.1 T forward and 11.1 T backward.
//
// Floor: those bytes at the memory's rate. Layer 1 of a ResNet-18 at 2×128 images of 80×80 (T = 210
// MB of bf16): 0.15 ms forward, 0.24 ms backward at 4.3 TB/s, 0.2 and 0.3 with a residual. The
// memory keeps pace if 32 KiB and more are on their way to a multiprocessor, so that a thread loads
// several rows before it uses one. Both sweeps run through a block's rows backwards: what the
// reduction read last is still in the cache, which holds a quarter of T.
//
// Grids: (chunks of rows, tiles of channels, groups); partial (groups, chunks, 2, c). Channels are
// a multiple of VECTOR.
#include "norm_rows.cuh"
#include "norm_totals.cuh"

constexpr int THREADS = 256;
// Blocks on a multiprocessor, forward and backward: the grid is one wave on an H100. The backward
// has three, since a thread keeps 40 numbers of its channels beside what it loads; that of two
// norms has two.
constexpr int RESIDENT = 4, RESIDENT_BACK = 3, RESIDENT_TWO = 2;

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

// saved (groups, 2, c) = mean and rstd; running statistics are moved towards each group's in turn;
// line (groups, 2, c) = scale and shift of γ·x̂ + β, which norm_apply needs. Grid: c / FINALIZED.
KERNEL(norm_finalize, THREADS)
(float* __restrict__ saved, float* __restrict__ running_mean, float* __restrict__ running_var,
 float* __restrict__ line, const float* __restrict__ partial, const act* __restrict__ x,
 const float* __restrict__ gamma, const float* __restrict__ beta, int groups, int rows, int c,
 int chunks, float eps, float momentum) {
    for (int first = 0; first < groups; first += TOGETHER) {
        const Share share = share_of(first, groups);
        const Totals sums = totals<THREADS>(partial, share, first, groups, chunks, c);
        if (threadIdx.x >= WARP) continue;
        const int channel = share.channel, g = share.group;
        const double n = rows, d = sums.first / n, raw = sums.second / n - d * d;
        // Rounding may leave it below zero. NOTE: not fmax, which would turn NaN into 0.
        const double var = raw < 0.0 ? 0.0 : raw;
        const float mean = float(double(to_float(x[size_t(g) * rows * c + channel])) + d);
        if (share.has) {
            const float rstd = float(1.0 / sqrt(var + double(eps)));
            saved[2 * g * c + channel] = mean;
            saved[(2 * g + 1) * c + channel] = rstd;
            const Affine y = affine(mean, rstd, gamma[channel], beta[channel]);
            line[2 * g * c + channel] = y.scale;
            line[(2 * g + 1) * c + channel] = y.shift;
        }
        // One row has no unbiased variance: it leaves the running one as it is.
        const float unbiased = rows > 1 ? float(var * n / (n - 1.0)) : 0.0f;
        float running = running_mean[channel], variance = running_var[channel];
#pragma unroll
        for (int t = 0; t < TOGETHER; ++t) {
            const float to = of_group(mean, share, t), spread = of_group(unbiased, share, t);
            if (first + t >= groups) break;
            running += momentum * (to - running);
            variance += momentum * ((rows > 1 ? spread : variance) - variance);
        }
        if (threadIdx.x < FINALIZED) {
            running_mean[channel] = running;
            running_var[channel] = variance;
        }
    }
}

// What is added to a norm: nothing, a map, a map that is normalised as x is.
enum Residual { NONE, MAP, NORM };

// A thread's part of norm_apply; `floor` is 0 with a ReLU, else −∞. `other` is the residual's line.
template <Residual RESIDUAL, bool MASK>
__device__ __forceinline__ void apply(act* __restrict__ z, unsigned char* __restrict__ mask,
                                      const act* __restrict__ x, const act* __restrict__ residual,
                                      const Line& own, const Line& other, const Walk& walk,
                                      float floor) {
    struct Loaded {
        Pack<8> x, residual;
    };
    for_rows<in_flight(RESIDUAL ? 2 : 1)>(
        walk.first, walk.end, walk.step,
        [&](int i) {
            Loaded row = {load_pack(x + walk.from_end(i)), {}};
            if (RESIDUAL) row.residual = load_pack(residual + walk.from_end(i));
            return row;
        },
        [&](int i, const Loaded& row) {
            F8 v = unpack(row.x), r = {};
            if (RESIDUAL) r = unpack(row.residual);
            unsigned open = 0;
#pragma unroll
            for (int k = 0; k < VECTOR; ++k) {
                if (RESIDUAL == NORM) r.v[k] = fmaf(r.v[k], other.scale.v[k], other.shift.v[k]);
                v.v[k] = max_nan(fmaf(v.v[k], own.scale.v[k], own.shift.v[k]) + r.v[k], floor);
                if (v.v[k] > STORED_AS_ZERO) open |= 1u << k;
            }
            store8(z + walk.from_end(i), v);
            if (MASK) mask[walk.from_end(i) / VECTOR] = open;
        });
}

// z = relu?(x·scale + shift + residual), scale and shift from line (groups, 2, c). With `saved`,
// gamma and beta the residual is a map to be normalised. mask is null where no backward follows.
KERNEL(norm_apply, THREADS, RESIDENT)
(act* __restrict__ z, Maybe<unsigned char> __restrict__ mask, const act* __restrict__ x,
 Maybe<const act> __restrict__ residual, const float* __restrict__ line,
 Maybe<const float> __restrict__ saved, Maybe<const float> __restrict__ gamma,
 Maybe<const float> __restrict__ beta, int rows, int c, int chunk, int wide, bool relu) {
    const Place at = place(THREADS, blockIdx.y, wide, c);
    if (!at.inside) return;
    const float floor = relu ? 0.0f : -INFINITY;
    const Walk walk = walk_of(at, rows, c, chunk);
    const size_t statistics = size_t(blockIdx.z) * 2 * c + at.channel;
    const Line own = {load_floats(line + statistics), load_floats(line + statistics + c)};
    if (saved) {
        const Line other = line_of(saved + statistics, gamma + at.channel, beta + at.channel, c);
        if (mask) {
            apply<NORM, true>(z, mask, x, residual, own, other, walk, floor);
        } else {
            apply<NORM, false>(z, mask, x, residual, own, other, walk, floor);
        }
    } else if (mask) {
        apply<MAP, true>(z, mask, x, residual, own, own, walk, floor);
    } else if (residual) {
        apply<MAP, false>(z, mask, x, residual, own, own, walk, floor);
    } else {
        apply<NONE, false>(z, mask, x, residual, own, own, walk, floor);
    }
}

// partial = Σg and Σ g·(x − mean); dresidual = g. Without a residual dresidual is null. A ReLU is
// known by mask behind a residual, else by beta; both are null without one.
KERNEL(norm_backward_reduce, THREADS, RESIDENT_BACK)
(float* __restrict__ partial, Maybe<act> __restrict__ dresidual, const act* __restrict__ dz,
 Maybe<const unsigned char> __restrict__ mask, const act* __restrict__ x,
 const float* __restrict__ saved, const float* __restrict__ gamma,
 Maybe<const float> __restrict__ beta, int rows, int c, int chunk, int wide) {
    const Place at = place(THREADS, blockIdx.y, wide, c);
    const Walk walk = walk_of(at, rows, c, chunk);
    F8 sum = {}, product = {};
    if (at.inside) {
        saved += size_t(blockIdx.z) * 2 * c + at.channel;
        const F8 mean = load_floats(saved);
        if (mask) {
            reduce<BY_MASK, true>(sum, product, dresidual, dz, mask, x, mean, {}, walk);
        } else if (dresidual) {
            reduce<OPEN, true>(sum, product, dresidual, dz, mask, x, mean, {}, walk);
        } else if (beta) {
            const Line line = line_of(saved, gamma + at.channel, beta + at.channel, c);
            reduce<BY_X, false>(sum, product, dresidual, dz, mask, x, mean, line, walk);
        } else {
            reduce<OPEN, false>(sum, product, dresidual, dz, mask, x, mean, {}, walk);
        }
    }
    block_sums<THREADS>(partial + (size_t(blockIdx.z) * gridDim.x + blockIdx.x) * 2 * c, sum,
                        product, blockIdx.y, wide, c);
}

// The same of two norms whose outputs were added up, behind a ReLU: Σg and Σ g·(x − mean) of each,
// g known by mask and written nowhere.
KERNEL(norm_backward_reduce_two, THREADS, RESIDENT_TWO)
(float* __restrict__ partial, float* __restrict__ partial_two, const act* __restrict__ dz,
 const unsigned char* __restrict__ mask, const act* __restrict__ x, const act* __restrict__ x_two,
 const float* __restrict__ saved, const float* __restrict__ saved_two, int rows, int c, int chunk,
 int wide) {
    const Place at = place(THREADS, blockIdx.y, wide, c);
    const Walk walk = walk_of(at, rows, c, chunk);
    F8 sum = {}, product = {}, product_two = {};
    if (at.inside) {
        const size_t statistics = size_t(blockIdx.z) * 2 * c + at.channel;
        const F8 mean = load_floats(saved + statistics),
                 mean_two = load_floats(saved_two + statistics);
        struct Loaded {
            Pack<8> dz, x, x_two;
            unsigned mask;
        };
        for_rows<in_flight(2)>(
            walk.first, walk.end, walk.step,
            [&](int i) {
                const size_t at = walk.from_start(i);
                return Loaded{load_pack(dz + at), load_pack(x + at), load_pack(x_two + at),
                              mask[at / VECTOR]};
            },
            [&](int, const Loaded& row) {
                const F8 g = masked(row.dz, row.mask), v = unpack(row.x), two = unpack(row.x_two);
#pragma unroll
                for (int k = 0; k < VECTOR; ++k) {
                    sum.v[k] += g.v[k];
                    product.v[k] = fmaf(g.v[k], v.v[k] - mean.v[k], product.v[k]);
                    product_two.v[k] = fmaf(g.v[k], two.v[k] - mean_two.v[k], product_two.v[k]);
                }
            });
    }
    const size_t own = (size_t(blockIdx.z) * gridDim.x + blockIdx.x) * 2 * c;
    block_sums<THREADS>(partial + own, sum, product, blockIdx.y, wide, c);
    // The first sums have been read.
    __syncthreads();
    block_sums<THREADS>(partial_two + own, sum, product_two, blockIdx.y, wide, c);
}

// dgamma and dbeta +=, group after group; line (groups, 4, c) are the coefficients of dx =
// g·line[0] + x·line[1] + line[2], and line[3] is the shift of the forward's γ·x̂ + β where beta is
// given: a ReLU that is known by x. Grid: c / FINALIZED.
KERNEL(norm_backward_finalize, THREADS)
(float* __restrict__ dgamma, float* __restrict__ dbeta, float* __restrict__ line,
 const float* __restrict__ partial, const float* __restrict__ saved,
 const float* __restrict__ gamma, Maybe<const float> __restrict__ beta, int groups, int rows, int c,
 int chunks) {
    for (int first = 0; first < groups; first += TOGETHER) {
        const Share share = share_of(first, groups);
        const Totals sums = totals<THREADS>(partial, share, first, groups, chunks, c);
        if (threadIdx.x >= WARP) continue;
        const int channel = share.channel, g = share.group;
        const float mean = saved[2 * g * c + channel], rstd = saved[(2 * g + 1) * c + channel];
        const double n = rows, along = sums.second * rstd;
        if (share.has) {
            const Affine y = affine(mean, rstd, gamma[channel], beta ? beta[channel] : 0.0f);
            const double slope = -double(y.scale) * rstd * along / n;
            float* own = line + size_t(g) * 4 * c + channel;
            own[0] = y.scale;
            own[c] = float(slope);
            own[2 * c] = float(-double(y.scale) * sums.first / n - slope * mean);
            own[3 * c] = y.shift;
        }
        float to_gamma = dgamma[channel], to_beta = dbeta[channel];
#pragma unroll
        for (int t = 0; t < TOGETHER; ++t) {
            const float more_gamma = of_group(float(along), share, t),
                        more_beta = of_group(float(sums.first), share, t);
            if (first + t >= groups) break;
            to_gamma += more_gamma;
            to_beta += more_beta;
        }
        if (threadIdx.x < FINALIZED) {
            dgamma[channel] = to_gamma;
            dbeta[channel] = to_beta;
        }
    }
}

// dx = g·line[0] + x·line[1] + line[2], line (groups, 4, c); g is dz, with `relu` where x·line[0] +
// line[3], the forward's z, is above zero.
KERNEL(norm_backward_apply, THREADS, RESIDENT_BACK)
(act* __restrict__ dx, const act* __restrict__ dz, const act* __restrict__ x,
 const float* __restrict__ line, int rows, int c, int chunk, int wide, bool relu) {
    const Place at = place(THREADS, blockIdx.y, wide, c);
    if (!at.inside) return;
    line += size_t(blockIdx.z) * 4 * c + at.channel;
    const Walk walk = walk_of(at, rows, c, chunk);
    if (relu) {
        backward<BY_X>(dx, dz, x, line, walk);
    } else {
        backward<OPEN>(dx, dz, x, line, walk);
    }
}

// The same of two norms whose outputs were added up, g known by mask.
KERNEL(norm_backward_apply_two, THREADS, RESIDENT_TWO)
(act* __restrict__ dx, act* __restrict__ dx_two, const act* __restrict__ dz,
 const unsigned char* __restrict__ mask, const act* __restrict__ x, const act* __restrict__ x_two,
 const float* __restrict__ line, const float* __restrict__ line_two, int rows, int c, int chunk,
 int wide) {
    const Place at = place(THREADS, blockIdx.y, wide, c);
    if (!at.inside) return;
    const size_t own = size_t(blockIdx.z) * 4 * c + at.channel;
    const Slope slope = slope_of(line + own, c), slope_two = slope_of(line_two + own, c);
    const Walk walk = walk_of(at, rows, c, chunk);
    struct Loaded {
        Pack<8> dz, x, x_two;
        unsigned mask;
    };
    for_rows<in_flight(2)>(
        walk.first, walk.end, walk.step,
        [&](int i) {
            const size_t at = walk.from_end(i);
            return Loaded{load_pack(dz + at), load_pack(x + at), load_pack(x_two + at),
                          mask[at / VECTOR]};
        },
        [&](int i, const Loaded& row) {
            const F8 g = masked(row.dz, row.mask);
            const size_t at = walk.from_end(i);
            store8(dx + at, slope.of(g, unpack(row.x)));
            store8(dx_two + at, slope_two.of(g, unpack(row.x_two)));
        });
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
