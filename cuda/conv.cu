// What stands around cuDNN's convolutions where its engines do not do it themselves.
//
// conv_round_bias       rounded = bias                     f32 to activations, (k): launch-bound
// conv_epilogue         y = relu?(y + bias + residual)     y, residual (rows, k); bias (k)      reads 1 or 2 maps, writes 1
// conv_add              dx += more                         of activations                       reads 2, writes 1
// conv_add_weight       dw += more                         dw f32, more of activations: weights are few, launch-bound
// conv_add_weight_wide  dw += more                         both f32
// conv_bias_partial     partial[block] = Σ of its rows     dy (rows, k) → (blocks, k) f32       reads dy once: the floor is its bytes
// conv_bias_sum         db += Σ of partial                 in the order of blocks               a few hundred KiB
//
// Maps are walked in vectors of 8 channels, 128 bits of a 16-bit type. A block is 8 vectors wide and 32 rows deep: a thread keeps
// its channels, so their bias stays in registers and no index is divided. 8 vectors are 128 contiguous bytes of 16-bit values.
#include "common.cuh"

constexpr int COLUMNS = 8;
constexpr int LANES = 32;
constexpr int CHANNELS = COLUMNS * 8;

// Blocks of 256 channels.
KERNEL(conv_round_bias, 256)(act* __restrict__ rounded, const float* __restrict__ bias, int k) {
    const int c = blockIdx.x * 256 + threadIdx.x;
    if (c < k) rounded[c] = to_act(bias[c]);
}

// Blocks (rows / LANES at most, k / CHANNELS rounded up).
KERNEL(conv_epilogue, 256)
(act* y, const float* __restrict__ bias, const act* __restrict__ residual, size_t rows, int k, int relu) {
    const int c = blockIdx.y * CHANNELS + threadIdx.x % COLUMNS * 8;
    if (c >= k) return;
    F8 b;
#pragma unroll
    for (int i = 0; i < 8; ++i) b.v[i] = bias ? bias[c + i] : 0.0f;
    for (size_t row = size_t(blockIdx.x) * LANES + threadIdx.x / COLUMNS; row < rows; row += size_t(gridDim.x) * LANES) {
        const size_t at = row * k + c;
        F8 v = load8(y + at);
#pragma unroll
        for (int i = 0; i < 8; ++i) v.v[i] += b.v[i];
        if (residual) {
            const F8 r = load8(residual + at);
#pragma unroll
            for (int i = 0; i < 8; ++i) v.v[i] += r.v[i];
        }
        if (relu) {
#pragma unroll
            for (int i = 0; i < 8; ++i) v.v[i] = max_nan(v.v[i], 0.0f);
        }
        store8(y + at, v);
    }
}

// `len` is a multiple of 8, here and below.
KERNEL(conv_add, 256)(act* dx, const act* __restrict__ more, size_t len) {
    const size_t step = size_t(gridDim.x) * 256 * 8;
    for (size_t at = (size_t(blockIdx.x) * 256 + threadIdx.x) * 8; at < len; at += step) {
        F8 v = load8(dx + at);
        const F8 m = load8(more + at);
#pragma unroll
        for (int i = 0; i < 8; ++i) v.v[i] += m.v[i];
        store8(dx + at, v);
    }
}

KERNEL(conv_add_weight, 256)(float* dw, const act* __restrict__ more, size_t len) {
    const size_t step = size_t(gridDim.x) * 256 * 8;
    for (size_t at = (size_t(blockIdx.x) * 256 + threadIdx.x) * 8; at < len; at += step) {
        const F8 m = load8(more + at);
#pragma unroll
        for (int i = 0; i < 8; ++i) dw[at + i] += m.v[i];
    }
}

KERNEL(conv_add_weight_wide, 256)(float* dw, const float* __restrict__ more, size_t len) {
    const size_t step = size_t(gridDim.x) * 256;
    for (size_t at = size_t(blockIdx.x) * 256 + threadIdx.x; at < len; at += step) dw[at] += more[at];
}

// Blocks as of conv_epilogue; partial (gridDim.x, k).
KERNEL(conv_bias_partial, 256)(float* __restrict__ partial, const act* __restrict__ dy, size_t rows, int k) {
    SHARED(float, tile, LANES * CHANNELS);
    const int column = threadIdx.x % COLUMNS * 8, lane = threadIdx.x / COLUMNS;
    const int first = blockIdx.y * CHANNELS;
    F8 sum = {};
    if (first + column < k) {
        for (size_t row = size_t(blockIdx.x) * LANES + lane; row < rows; row += size_t(gridDim.x) * LANES) {
            const F8 d = load8(dy + row * k + first + column);
#pragma unroll
            for (int i = 0; i < 8; ++i) sum.v[i] += d.v[i];
        }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) tile[lane * CHANNELS + column + i] = sum.v[i];
    __syncthreads();
    const int c = threadIdx.x;
    if (c < CHANNELS && first + c < k) {
        float total = 0.0f;
        for (int l = 0; l < LANES; ++l) total += tile[l * CHANNELS + c];
        partial[size_t(blockIdx.x) * k + first + c] = total;
    }
}

// A block of 32 channels by 8 lanes; k / 32 blocks, rounded up.
KERNEL(conv_bias_sum, 256)(float* db, const float* __restrict__ partial, int blocks, int k) {
    SHARED(float, tile, 256);
    const int c = blockIdx.x * 32 + threadIdx.x % 32, lane = threadIdx.x / 32;
    float sum = 0.0f;
    if (c < k) {
        for (int block = lane; block < blocks; block += 8) sum += partial[size_t(block) * k + c];
    }
    tile[threadIdx.x] = sum;
    __syncthreads();
    if (lane == 0 && c < k) {
        for (int l = 1; l < 8; ++l) sum += tile[l * 32 + threadIdx.x];
        db[c] += sum;
    }
}
