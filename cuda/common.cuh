// What all kernels share: the activation type, entry names, shared memory, vector access, conversions, warp sums.
//
// Every .cu is compiled three times, with PICIE_ACT_F32, PICIE_ACT_BF16 and PICIE_ACT_F16. `act` is the type of activations in
// device memory; arithmetic is f32. nvcc compiles it for a GPU; the host compiler, with tests/softgpu/shim.h before it, for the
// software GPU.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

#if defined(PICIE_ACT_F32)
using act = float;
#define ENTRY(name) JOIN(name, _f32)
#elif defined(PICIE_ACT_BF16)
using act = __nv_bfloat16;
#define ENTRY(name) JOIN(name, _bf16)
#elif defined(PICIE_ACT_F16)
using act = __half;
#define ENTRY(name) JOIN(name, _f16)
#else
#error "one of PICIE_ACT_F32, PICIE_ACT_BF16, PICIE_ACT_F16 must be defined"
#endif

// KERNEL(norm_stats, 256)(float* out, …) {…} is the entry norm_stats_f32, norm_stats_bf16 or norm_stats_f16 for blocks of at most
// 256 threads. SHARED(type, name, count) is an array that the block shares; DYNAMIC_SHARED(type, name) the one whose size the
// launch gives, one per kernel. Both are aligned to 16 bytes. NOTE: names are pointers in the software GPU: no `sizeof name`.
#ifdef __CUDACC__
#define KERNEL(name, threads) extern "C" __global__ void __launch_bounds__(threads) ENTRY(name)
#define SHARED(type, name, count) __shared__ __align__(16) type name[count]
extern __shared__ __align__(16) unsigned char dynamic_shared[];
#define DYNAMIC_SHARED(type, name) type* const name = reinterpret_cast<type*>(dynamic_shared)
#else
#define KERNEL(name, threads) SOFTGPU_KERNEL(ENTRY(name), threads)
#define SHARED(type, name, count) SOFTGPU_SHARED(type, name, count)
#define DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(softgpu::dynamic_shared())
#endif

__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ __forceinline__ float to_float(__half v) { return __half2float(v); }

__device__ __forceinline__ void convert(float& to, float v) { to = v; }
__device__ __forceinline__ void convert(__nv_bfloat16& to, float v) { to = __float2bfloat16(v); }
__device__ __forceinline__ void convert(__half& to, float v) { to = __float2half(v); }

// Rounds to the nearest activation, ties to even.
__device__ __forceinline__ act to_act(float v) {
    act a;
    convert(a, v);
    return a;
}

// N neighbouring numbers in registers.
template <int N>
struct Floats {
    float v[N];
};
using F4 = Floats<4>;
using F8 = Floats<8>;

// One transaction of N·sizeof(T) bytes; two of 16 for eight floats.
template <class T, int N>
struct alignas(sizeof(T) * N > 16 ? 16 : sizeof(T) * N) Pack {
    T v[N];
};

template <int N, class T>
__device__ __forceinline__ Floats<N> load(const T* from) {
    const Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(from);
    Floats<N> x;
#pragma unroll
    for (int i = 0; i < N; ++i) x.v[i] = to_float(pack.v[i]);
    return x;
}

template <int N, class T>
__device__ __forceinline__ void store(T* to, const Floats<N>& x) {
    Pack<T, N> pack;
#pragma unroll
    for (int i = 0; i < N; ++i) convert(pack.v[i], x.v[i]);
    *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// Four (eight) neighbours at once; addresses are multiples of four (eight) elements.
template <class T>
__device__ __forceinline__ F4 load4(const T* from) { return load<4>(from); }
template <class T>
__device__ __forceinline__ F8 load8(const T* from) { return load<8>(from); }
template <class T>
__device__ __forceinline__ void store4(T* to, const F4& x) { store<4>(to, x); }
template <class T>
__device__ __forceinline__ void store8(T* to, const F8& x) { store<8>(to, x); }

// Sum and maximum over the 32 lanes of a warp, the same bits in every lane.
__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) v += __shfl_xor_sync(0xffffffff, v, lane);
    return v;
}

__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffff, v, lane));
    return v;
}
