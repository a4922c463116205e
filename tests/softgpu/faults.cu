// Kernels that the tests of the software GPU run: right ones, and one for every fault that it must
// catch. No part of the engine.
#include "../../cuda/mma.cuh"

// out[block] = Σ of the block's 256 elements of x: warps, then the warps' sums.
KERNEL(faults_sum, 256)(float* __restrict__ out, const float* __restrict__ x) {
    SHARED(float, sums, 8);
    const float sum = warp_sum(x[blockIdx.x * 256 + threadIdx.x]);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    float all = 0;
    for (int warp = 0; warp < 8; ++warp) all += sums[warp];
    if (threadIdx.x == 0) out[blockIdx.x] = all;
}

// What every shuffle and vote gives each of 32 lanes.
KERNEL(faults_warp, 32)(unsigned* out, const unsigned* x) {
    const unsigned lane = threadIdx.x, v = x[lane];
    unsigned* row = out + lane * 10;
    row[0] = __shfl_sync(0xffffffff, v, 5);
    row[1] = __shfl_xor_sync(0xffffffff, v, 3);
    row[2] = __shfl_down_sync(0xffffffff, v, 4);
    row[3] = __shfl_up_sync(0xffffffff, v, 4);
    row[4] = __ballot_sync(0xffffffff, v % 3 == 0);
    row[5] = __any_sync(0xffffffff, lane == 7);
    row[6] = __all_sync(0xffffffff, lane < 31);
    row[7] = __shfl_down_sync(0xffffffff, v, 3, 8);
    row[8] = __shfl_up_sync(0xffffffff, v, 3, 8);
    row[9] = __shfl_sync(0xffffffff, v, lane + 1, 8);
    __syncwarp();
}

// out[x[i]] += 1.
KERNEL(faults_count, 128)(unsigned* out, const unsigned* x, int n) {
    const int i = blockIdx.x * 128 + threadIdx.x;
    if (i < n) atomicAdd(out + x[i], 1u);
}

// Reverses 2·threads elements of a block in dynamic shared memory, and says where each thread ran.
KERNEL(faults_reverse, 1024)(float* out, unsigned* where, const float* x) {
    DYNAMIC_SHARED(float, tile);
    const unsigned threads = blockDim.x * blockDim.y, i = threadIdx.y * blockDim.x + threadIdx.x;
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    for (unsigned k = i; k < 2 * threads; k += threads) tile[k] = x[block * 2 * threads + k];
    __syncthreads();
    for (unsigned k = i; k < 2 * threads; k += threads)
        out[block * 2 * threads + k] = tile[2 * threads - 1 - k];
    where[block * threads + i] =
        blockIdx.x | blockIdx.y << 8 | blockIdx.z << 16 | threadIdx.x << 20 | threadIdx.y << 26;
}

// A warp whose requests are counted by hand in traffic/mod.rs: sectors and wavefronts, and as few as
// would do, behind each.
KERNEL(faults_traffic, 32)(float* out, const float* x) {
    SHARED(float, tile, 32 * 33);
    const int i = threadIdx.x;
    const float near = x[i], far = x[32 * i];  // 4 (4), 32 (4)
    tile[32 * i] = near;                       // 32 (1)
    tile[33 * i] = far;                        // 1 (1)
    __syncthreads();
    softgpu::traffic(tile + 4 * i, 16, false);  // 4 (4)
    if (i < 8) out[i] = tile[i];                // 1 (1), 1 (1)
}

// Rounds to act and back, eight at a time.
KERNEL(faults_round, 64)(float* out, act* rounded, const float* x, int n) {
    const int i = (blockIdx.x * 64 + threadIdx.x) * 8;
    if (i >= n) return;
    F8 v;
    for (int k = 0; k < 8; ++k) v.v[k] = x[i + k];
    store8(rounded + i, v);
    v = load8(rounded + i);
    for (int k = 0; k < 8; ++k) out[i + k] = v.v[k];
}

// out (count, 16, 8) = x (count, 16, 16) · y (count, 16, 8) + out, all of them halves of words: bf16.
KERNEL(faults_mma, 32)(float* out, const unsigned* x, const unsigned* y) {
    const int g = threadIdx.x / 4, t = threadIdx.x % 4;
    out += blockIdx.x * 128;
    x += blockIdx.x * 128;
    y += blockIdx.x * 64;
    const unsigned short* y16 = reinterpret_cast<const unsigned short*>(y);
    unsigned a[4], b[2];
    for (int i = 0; i < 4; ++i) a[i] = x[(g + i % 2 * 8) * 8 + t + i / 2 * 4];
    for (int i = 0; i < 2; ++i)
        b[i] = y16[(2 * t + 8 * i) * 8 + g] | y16[(2 * t + 8 * i + 1) * 8 + g] << 16;
    float d[4];
    for (int i = 0; i < 4; ++i) d[i] = out[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
    mma(d, a, b);
    for (int i = 0; i < 4; ++i) out[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
}

// out (2, 4, 32) = the words of each lane of four 8×8 matrices x, as they lie and transposed.
KERNEL(faults_matrix, 32)(unsigned* out, const unsigned* x) {
    SHARED(unsigned, rows, 32 * 4);
    for (int i = 0; i < 4; ++i) rows[4 * threadIdx.x + i] = x[4 * threadIdx.x + i];
    __syncwarp();
    unsigned plain[4], transposed[4];
    load_matrix<false>(plain, rows + 4 * threadIdx.x);
    load_matrix<true>(transposed, rows + 4 * threadIdx.x);
    for (int i = 0; i < 4; ++i) {
        out[32 * i + threadIdx.x] = plain[i];
        out[128 + 32 * i + threadIdx.x] = transposed[i];
    }
}

// out (count·256) = x (n), zeros behind its end: a pipeline of three stages of 64 threads' copies,
// of which each reads what another thread copied.
KERNEL(faults_pipeline, 64)(float* out, const float* x, int n, int count) {
    SHARED(float, stages, 3 * 256);
    const int t = threadIdx.x;
    const auto fetch = [&](int i) {
        const int at = 256 * i + 4 * t;
        if (i < count) copy16(stages + i % 3 * 256 + 4 * t, x + at, at < n);
        commit();
    };
    fetch(0);
    fetch(1);
    for (int i = 0; i < count; ++i) {
        wait<1>();
        __syncthreads();
        fetch(i + 2);
        for (int k = 0; k < 4; ++k) out[256 * i + 64 * k + t] = stages[i % 3 * 256 + 64 * k + t];
    }
}

// Two floats as a word of bf16 and as one of f16; 8 and 16 bytes in one store.
KERNEL(faults_pack, 64)(unsigned* out, const float* x) {
    const int i = blockIdx.x * 64 + threadIdx.x;
    const unsigned wide = pack_bf16(x[2 * i], x[2 * i + 1]),
                   narrow = pack_f16(x[2 * i], x[2 * i + 1]);
    store64(out + 8 * i, wide, narrow);
    store64(out + 8 * i + 2, pack_act(x[2 * i], x[2 * i + 1]), 0);
    store128(out + 8 * i + 4, narrow, wide, 1, 2);
}

KERNEL(faults_add, 32)(float* out, float by) { out[threadIdx.x] += by; }

// Nothing wrong in it.
KERNEL(faults_pass, 64)() {
    __syncthreads();
    __syncwarp();
    __syncthreads();
}

// --- faults

KERNEL(faults_global, 32)(float* out, int off) {
    if (threadIdx.x == 3) out[off] = 1;
}

KERNEL(faults_shared, 32)(float* out, int off) {
    SHARED(float, tile, 32);
    tile[threadIdx.x] = 0;
    if (threadIdx.x == 3) tile[off] = 1;
    out[threadIdx.x] = tile[threadIdx.x];
}

// All threads write one element.
KERNEL(faults_race, 64)(float* out) {
    SHARED(float, one, 1);
    one[0] = threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = one[0];
}

// Blocks write one element.
KERNEL(faults_block_race, 32)(float* out) { out[threadIdx.x] = blockIdx.x; }

// Reads what a neighbour wrote, without a barrier between.
KERNEL(faults_no_barrier, 64)(float* out) {
    SHARED(float, tile, 64);
    tile[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = tile[threadIdx.x ^ 1];
}

KERNEL(faults_half_barrier, 64)(float* out) {
    out[threadIdx.x] = 0;
    if (threadIdx.x < 40) __syncthreads();
}

// A warp does not come.
KERNEL(faults_one_warp_barrier, 64)(float* out) {
    out[threadIdx.x] = 0;
    if (threadIdx.x < 32) __syncthreads();
}

KERNEL(faults_two_barriers, 64)(float* out) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 0;
}

KERNEL(faults_half_warp, 32)(float* out) {
    float v = 0;
    if (threadIdx.x < 16) v = __shfl_xor_sync(0xffffffff, v, 1);
    out[threadIdx.x] = v;
}

KERNEL(faults_mask, 32)(float* out) { out[threadIdx.x] = __shfl_xor_sync(0xffff, 1.0f, 1); }

// 16 KiB of its own, and dynamic shared memory.
KERNEL(faults_both_kinds, 32)(float* out) {
    SHARED(float, own, 4096);
    DYNAMIC_SHARED(float, tile);
    own[threadIdx.x] = 1;
    tile[threadIdx.x] = 2;
    out[threadIdx.x] = own[threadIdx.x] + tile[threadIdx.x];
}

KERNEL(faults_uninitialised, 32)(unsigned* out) {
    SHARED(unsigned, tile, 32);
    out[threadIdx.x] = tile[threadIdx.x];
}

// Half a warp multiplies; half a warp loads matrices.
KERNEL(faults_half_mma, 32)(float* out) {
    float d[4] = {};
    const unsigned a[4] = {}, b[2] = {};
    if (threadIdx.x < 16) mma(d, a, b);
    out[threadIdx.x] = d[0];
}

KERNEL(faults_half_matrix, 32)(unsigned* out) {
    SHARED(unsigned, rows, 32 * 4);
    unsigned r[4] = {};
    if (threadIdx.x < 16) {
        load_matrix<false>(r, rows + 4 * threadIdx.x);
    } else {
        load_matrix<false>(r, rows);
    }
    out[threadIdx.x] = r[0];
}

KERNEL(faults_matrix_row, 32)(unsigned* out) {
    SHARED(unsigned, rows, 32 * 4 + 4);
    unsigned r[4];
    load_matrix<false>(r, rows + 4 * threadIdx.x + 2);
    out[threadIdx.x] = r[0];
}

// Loads rows that other lanes stored, without __syncwarp between.
KERNEL(faults_matrix_early, 32)(unsigned* out) {
    SHARED(unsigned, rows, 32 * 4);
    unsigned r[4];
    for (int i = 0; i < 4; ++i) rows[4 * (31 - threadIdx.x) + i] = threadIdx.x;
    load_matrix<false>(r, rows + 4 * threadIdx.x);
    out[threadIdx.x] = r[0];
}

// What thread t ^ other copied, with a wait before the read or behind it (if at all), and a barrier
// between copies and reads.
KERNEL(faults_copy, 64)(unsigned* out, const unsigned* x, int other, int before, int sync,
                        int behind) {
    SHARED(unsigned, tile, 256);
    const int t = threadIdx.x;
    copy16(tile + 4 * t, x + 4 * t);
    commit();
    if (before) wait<0>();
    if (sync) __syncthreads();
    for (int i = 0; i < 4; ++i) out[4 * t + i] = tile[4 * (t ^ other) + i];
    if (behind) wait<0>();
}

KERNEL(faults_copy_unaligned, 32)(const unsigned* x, int to, int from) {
    SHARED(unsigned, tile, 256);
    copy16(tile + 4 * threadIdx.x + to, x + 4 * threadIdx.x + from);
    commit();
    wait<0>();
}

// A copy to what is no shared memory.
KERNEL(faults_copy_away, 32)(unsigned* out, const unsigned* x) {
    copy16(out + 4 * threadIdx.x, x + 4 * threadIdx.x);
    commit();
    wait<0>();
}

// Copies `off` elements behind the end of the tile, and from as far behind that of x.
KERNEL(faults_copy_outside, 32)(unsigned* out, const unsigned* x, int to, int from) {
    SHARED(unsigned, tile, 128);
    copy16(tile + 4 * threadIdx.x + to, x + 4 * threadIdx.x + from);
    commit();
    wait<0>();
    __syncwarp();
    out[threadIdx.x] = tile[threadIdx.x];
}
