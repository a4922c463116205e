// Tensor cores and asynchronous copies (sm_80 and later). The software GPU has its own
// (tests/softgpu/tensor.h), so kernels use nothing of the kind but this.
//
//   mma(d, a, b)                   d (16×8) += a (16×16)·b (16×8): bf16 products, f32 sums
//   mma_act(d, a, b)               the same, of activations of a 16-bit type
//   load_matrix<transposed>(r, p)  four 8×8 matrices of 16 bits from shared memory
//   copy16(to, from)               16 bytes from global to shared memory, on their way
//   copy16(to, from, exists)       the same, or 16 bytes of zeros: then `from` is not read
//   commit(), wait<N>()            a group of copies; all groups but the last N have landed
//   equal_pairs(x, y)              0x3c00 in each half of a word where those of x and y are equal
//                                  as f16, else 0: 1 as f16, and 2⁻⁷ as bf16
//   split(x, y)                    two floats as bf16 parts; a product of two such numbers is
//                                  hi·hi + hi·lo + lo·hi within 3·2⁻¹⁶ of it
//
// Fragments of a lane = 4·g + t, two neighbours in a word, the first in its lower half:
//
//   a[0] (g, 2t)   a[1] (g + 8, 2t)   a[2] (g, 2t + 8)   a[3] (g + 8, 2t + 8), and to the right
//   b[0] (2t, g)   b[1] (2t + 8, g), and below
//   d[0] (g, 2t)   d[1] (g, 2t + 1)   d[2] (g + 8, 2t)   d[3] (g + 8, 2t + 1)
//
// load_matrix gives r[m] = (row g, columns 2t and 2t + 1) of matrix m, whose row i is the 16 bytes
// that lane 8·m + i points to; transposed, (rows 2t and 2t + 1, column g). All 32 lanes must call
// mma and load_matrix. Of a warp that stores rows and loads them as matrices, __syncwarp must come
// between. The order in which an mma sums is the GPU's, the same in every run.
//
// A thread waits for its own copies alone: to read those of others it needs a barrier behind its
// wait. Each copy is waited for before the block ends, and to, from are aligned to 16 bytes.
#pragma once
#include "common.cuh"

#ifdef __CUDACC__
__device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void mma_act(float (&d)[4], const unsigned (&a)[4],
                                        const unsigned (&b)[2]) {
#if defined(PICIE_ACT_F16)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    mma(d, a, b);
#endif
}

// The address of what lies in shared memory.
__device__ __forceinline__ unsigned shared_address(const void* p) {
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

template <bool TRANSPOSED>
__device__ __forceinline__ void load_matrix(unsigned (&r)[4], const void* row) {
    if (TRANSPOSED) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(shared_address(row))
                     : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(shared_address(row))
                     : "memory");
    }
}

__device__ __forceinline__ void copy16(void* to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)),
                 "l"(__cvta_generic_to_global(from))
                 : "memory");
}
__device__ __forceinline__ void copy16(void* to, const void* from, bool exists) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(exists ? 16 : 0)
                 : "memory");
}
__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
__device__ __forceinline__ void wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
__device__ __forceinline__ unsigned equal_pairs(unsigned x, unsigned y) {
    unsigned pair;
    asm("set.eq.f16x2.f16x2 %0, %1, %2;" : "=r"(pair) : "r"(x), "r"(y));
    return pair;
}
#endif

// Two floats as bf16, and what that leaves of them as bf16: x = hi + lo within 2⁻¹⁶·|x|.
struct Split {
    unsigned hi, lo;
};

// The first and the second bf16 of a pair.
__device__ __forceinline__ float first_of(unsigned pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float second_of(unsigned pair) {
    return __uint_as_float(pair & 0xffff0000u);
}

__device__ __forceinline__ Split split(float x, float y) {
    const unsigned hi = pack_bf16(x, y);
    return {hi, pack_bf16(x - first_of(hi), y - second_of(hi))};
}
