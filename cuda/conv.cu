// Passes that follow a convolution where what computes it does not do all that is asked.
//
// conv_epilogue         y = relu?(y + bias + residual)   reads one or two maps, writes one
// conv_add              dx += more                       reads two maps, writes one
// conv_add_weight       dw += more                       more of activations; small
// conv_add_weight_wide  dw += more                       both f32; small
// conv_bias_partial     partial[block] = Σ of its rows   reads dy once
// conv_sum              sums += Σ of partial             in the order of blocks: of a bias a few
//                                                       hundred KiB, of conv_image_weight 19 MB
//
// The floor of each is those bytes at the memory's rate. Maps are walked in vectors of 8 channels,
// 128 bits of a 16-bit type. A block is COLUMNS vectors wide and LANES rows deep: a thread keeps
// its channels, so their bias stays in registers and no index is divided. 8 vectors are 128
// contiguous bytes of 16-bit values. Weights are walked in fours, so that the lanes of a warp have
// f32 gradients side by side: 10 bytes a weight, 0.11 GB a step of a ResNet-18, 26 µs at 4.3 TB/s.
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int COLUMNS = 8;
constexpr int LANES = 32;
// Channels of a block.
constexpr int CHANNELS = COLUMNS * VECTOR;
// A block of conv_sum: columns, and threads that share the partial sums of one.
constexpr int SUMMED = 32;
constexpr int SHARERS = 8;
// Elements of a weight's vector, and of the shortest map's.
constexpr int FOUR = 4;
// Rows that a thread of conv_bias_partial has in flight, 64 KiB on a multiprocessor; half as many of
// conv_epilogue, which may read two maps.
constexpr int DEPTH = 4;
// Blocks of these two on a multiprocessor.
constexpr int RESIDENT = 4;

static_assert(COLUMNS * LANES == THREADS, "a thread for each vector and row of a block");
static_assert(CHANNELS <= THREADS, "a thread for each channel that a block sums");
static_assert(SUMMED * SHARERS == THREADS, "a thread for each channel and share");
static_assert(LANES * CHANNELS * sizeof(float) <= PLAIN_SHARED, "the tile fits");

// y, residual (rows, k), bias (k). Blocks (⌈rows/LANES⌉ or fewer, ⌈k/CHANNELS⌉).
KERNEL(conv_epilogue, THREADS, RESIDENT)
(act* y, Maybe<const act> __restrict__ bias, Maybe<const act> __restrict__ residual, size_t rows,
 int k, bool relu) {
    const int c = blockIdx.y * CHANNELS + threadIdx.x % COLUMNS * VECTOR;
    if (c >= k) return;
    F8 b = {};
    if (bias) b = load8(bias + c);
    struct Loaded {
        Pack<8> y, residual;
    };
    for_rows<DEPTH / 2>(
        size_t(blockIdx.x) * LANES + threadIdx.x / COLUMNS, rows, size_t(gridDim.x) * LANES,
        [&](size_t row) {
            Loaded loaded = {load_pack(y + row * k + c), {}};
            if (residual) loaded.residual = load_pack(residual + row * k + c);
            return loaded;
        },
        [&](size_t row, const Loaded& loaded) {
            F8 v = unpack(loaded.y);
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) v.v[i] += b.v[i];
            if (residual) {
                const F8 r = unpack(loaded.residual);
#pragma unroll
                for (int i = 0; i < VECTOR; ++i) v.v[i] += r.v[i];
            }
            if (relu) {
#pragma unroll
                for (int i = 0; i < VECTOR; ++i) v.v[i] = max_nan(v.v[i], 0.0f);
            }
            store8(y + row * k + c, v);
        });
}

// dx, more (len); `len` is a multiple of FOUR: pixels of four channels may be odd in number.
KERNEL(conv_add, THREADS)(act* dx, const act* __restrict__ more, size_t len) {
    const size_t step = size_t(gridDim.x) * THREADS * VECTOR;
    size_t at = (size_t(blockIdx.x) * THREADS + threadIdx.x) * VECTOR;
    for (; at + VECTOR <= len; at += step) {
        F8 v = load8(dx + at);
        const F8 m = load8(more + at);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) v.v[i] += m.v[i];
        store8(dx + at, v);
    }
    if (at < len) {
        F4 v = load4(dx + at);
        const F4 m = load4(more + at);
#pragma unroll
        for (int i = 0; i < FOUR; ++i) v.v[i] += m.v[i];
        store4(dx + at, v);
    }
}

// dw, more (len); `len` is a multiple of FOUR.
KERNEL(conv_add_weight, THREADS)(float* dw, const act* __restrict__ more, size_t len) {
    const size_t step = size_t(gridDim.x) * THREADS * FOUR;
    for (size_t at = (size_t(blockIdx.x) * THREADS + threadIdx.x) * FOUR; at < len; at += step) {
        const F4 m = load4(more + at);
        float4& to = *reinterpret_cast<float4*>(dw + at);
        const float4 old = to;
        to = make_float4(old.x + m.v[0], old.y + m.v[1], old.z + m.v[2], old.w + m.v[3]);
    }
}

// As conv_add_weight, where cuDNN gives f32.
KERNEL(conv_add_weight_wide, THREADS)(float* dw, const float* __restrict__ more, size_t len) {
    const size_t step = size_t(gridDim.x) * THREADS;
    for (size_t at = size_t(blockIdx.x) * THREADS + threadIdx.x; at < len; at += step)
        dw[at] += more[at];
}

// partial (gridDim.x, k) = sums of dy (rows, k) over the rows of a block. Blocks as of
// conv_epilogue.
KERNEL(conv_bias_partial, THREADS, RESIDENT)(float* __restrict__ partial,
                                             const act* __restrict__ dy, size_t rows, int k) {
    SHARED(float, tile, LANES * CHANNELS);
    const int column = threadIdx.x % COLUMNS * VECTOR, lane = threadIdx.x / COLUMNS;
    const int first = blockIdx.y * CHANNELS;
    F8 sum = {};
    if (first + column < k) {
        const act* at = dy + first + column;
        for_rows<DEPTH>(
            size_t(blockIdx.x) * LANES + lane, rows, size_t(gridDim.x) * LANES,
            [&](size_t row) { return load_pack(at + row * k); },
            [&](size_t, const Pack<8>& pack) {
                const F8 d = unpack(pack);
#pragma unroll
                for (int i = 0; i < VECTOR; ++i) sum.v[i] += d.v[i];
            });
    }
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) tile[lane * CHANNELS + column + i] = sum.v[i];
    __syncthreads();
    const int c = threadIdx.x;
    if (c < CHANNELS && first + c < k) {
        float total = 0.0f;
        for (int l = 0; l < LANES; ++l) total += tile[l * CHANNELS + c];
        partial[size_t(blockIdx.x) * k + first + c] = total;
    }
}

// sums (k) += Σ partial (blocks, k). ⌈k/SUMMED⌉ blocks.
KERNEL(conv_sum, THREADS)(float* sums, const float* __restrict__ partial, int blocks, int k) {
    SHARED(float, tile, THREADS);
    const int c = blockIdx.x * SUMMED + threadIdx.x % SUMMED, lane = threadIdx.x / SUMMED;
    float sum = 0.0f;
    if (c < k) {
        for (int block = lane; block < blocks; block += SHARERS)
            sum += partial[size_t(block) * k + c];
    }
    tile[threadIdx.x] = sum;
    __syncthreads();
    if (lane == 0 && c < k) {
        for (int l = 1; l < SHARERS; ++l) sum += tile[l * SUMMED + threadIdx.x];
        sums[c] += sum;
    }
}
