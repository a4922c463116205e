// What a thread of batch norm does with its rows: their order, a norm's line, the way back.
#pragma once

#include "stats.cuh"

// A block's rows are a multiple of DEPTH for each of its threads.
constexpr int DEPTH = 4;

// Rows that a thread has in flight where it reads so many maps: 64 bytes and more.
__host__ __device__ constexpr int in_flight(int maps) {
    return (maps == 1 ? DEPTH : DEPTH / 2) * 2 / int(sizeof(act));
}
static_assert(in_flight(2) >= 1 && DEPTH % in_flight(1) == 0, "chunks are cut for it");

// Of a thread's channels.
struct Line {
    F8 scale, shift;
};

// The line of γ·x̂ + β, its statistics in saved (2, c) from the thread's first channel on.
__device__ __forceinline__ Line line_of(const float* saved, const float* gamma, const float* beta,
                                        int c) {
    const F8 mean = load_floats(saved), rstd = load_floats(saved + c), g = load_floats(gamma),
             b = load_floats(beta);
    Line line;
#pragma unroll
    for (int k = 0; k < VECTOR; ++k) {
        const Affine y = affine(mean.v[k], rstd.v[k], g.v[k], b.v[k]);
        line.scale.v[k] = y.scale;
        line.shift.v[k] = y.shift;
    }
    return line;
}

// The rows of a thread of a block: `first`, first + step, … < end, counted from the block's first.
struct Walk {
    // Where the thread's channels lie in the block's first row.
    size_t column;
    int first, end, step, c;

    __device__ size_t from_start(int i) const { return column + size_t(i) * c; }
    // Where the i-th row from the block's last lies. Sweeps go this way, since what the reduction
    // before read last is in the cache.
    __device__ size_t from_end(int i) const { return column + size_t(end - 1 - i) * c; }
};

// A group has `rows` rows, a block `chunk` of them. Grid: (chunks, tiles of channels, groups).
__device__ __forceinline__ Walk walk_of(const Place& at, int rows, int c, int chunk) {
    const int start = blockIdx.x * chunk;
    return {(size_t(blockIdx.z) * rows + start) * c + at.channel, at.lane, min(chunk, rows - start),
            at.lanes, c};
}

// What tells where a ReLU lets the gradient through: there is none, x, or a bit of the mask.
enum Gate { OPEN, BY_X, BY_MASK };

// Whether the forward stored a positive z of x. NOTE: the same multiply-add as norm_apply's, so
// that no gradient flows where z is zero; false where it is NaN, as z > 0 is.
__device__ __forceinline__ bool opens(float x, float scale, float shift) {
    return fmaf(x, scale, shift) > STORED_AS_ZERO;
}

// dz where its channel's bit is set, else zero.
__device__ __forceinline__ F8 masked(const Pack<8>& dz, unsigned mask) {
    F8 g = unpack(dz);
#pragma unroll
    for (int k = 0; k < VECTOR; ++k) g.v[k] = mask >> k & 1 ? g.v[k] : 0.0f;
    return g;
}

// A thread's part of norm_backward_reduce. `line` is read BY_X alone.
template <Gate GATE, bool RESIDUAL>
__device__ __forceinline__ void reduce(F8& sum, F8& product, act* __restrict__ dresidual,
                                       const act* __restrict__ dz,
                                       const unsigned char* __restrict__ mask,
                                       const act* __restrict__ x, const F8& centre,
                                       const Line& line, const Walk& walk) {
    struct Loaded {
        Pack<8> dz, x;
        unsigned mask;
    };
    for_rows<in_flight(2)>(
        walk.first, walk.end, walk.step,
        [&](int i) {
            const size_t at = walk.from_start(i);
            Loaded row = {load_pack(dz + at), load_pack(x + at), 0};
            if (GATE == BY_MASK) row.mask = mask[at / VECTOR];
            return row;
        },
        [&](int i, const Loaded& row) {
            F8 g = GATE == BY_MASK ? masked(row.dz, row.mask) : unpack(row.dz);
            const F8 v = unpack(row.x);
#pragma unroll
            for (int k = 0; k < VECTOR; ++k) {
                if (GATE == BY_X)
                    g.v[k] = opens(v.v[k], line.scale.v[k], line.shift.v[k]) ? g.v[k] : 0.0f;
                sum.v[k] += g.v[k];
                product.v[k] = fmaf(g.v[k], v.v[k] - centre.v[k], product.v[k]);
            }
            if (RESIDUAL) store8(dresidual + walk.from_start(i), g);
        });
}

// The coefficients of dx = g·scale + x·slope + offset.
struct Slope {
    F8 scale, slope, offset;

    __device__ __forceinline__ F8 of(const F8& g, const F8& x) const {
        F8 dx;
#pragma unroll
        for (int k = 0; k < VECTOR; ++k)
            dx.v[k] = fmaf(scale.v[k], g.v[k], fmaf(slope.v[k], x.v[k], offset.v[k]));
        return dx;
    }
};

// line (4, c), from the thread's first channel on.
__device__ __forceinline__ Slope slope_of(const float* line, int c) {
    return {load_floats(line), load_floats(line + c), load_floats(line + 2 * c)};
}

// A thread's part of norm_backward_apply.
template <Gate GATE>
__device__ __forceinline__ void backward(act* __restrict__ dx, const act* __restrict__ dz,
                                         const act* __restrict__ x, const float* line,
                                         const Walk& walk) {
    const Slope slope = slope_of(line, walk.c);
    F8 shift = {};
    if (GATE == BY_X) shift = load_floats(line + 3 * walk.c);
    struct Loaded {
        Pack<8> dz, x;
    };
    for_rows<in_flight(2)>(
        walk.first, walk.end, walk.step,
        [&](int i) {
            return Loaded{load_pack(dz + walk.from_end(i)), load_pack(x + walk.from_end(i))};
        },
        [&](int i, const Loaded& row) {
            F8 g = unpack(row.dz);
            const F8 v = unpack(row.x);
#pragma unroll
            for (int k = 0; k < VECTOR; ++k)
                if (GATE == BY_X)
                    g.v[k] = opens(v.v[k], slope.scale.v[k], shift.v[k]) ? g.v[k] : 0.0f;
            store8(dx + walk.from_end(i), slope.of(g, v));
        });
}
