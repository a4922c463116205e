// What every kernel file shares: the element type of activations, entries, shared memory, 128-bit
// accesses and sums over a warp.
//
// A file is compiled once per element type, with PICIE_ACT_F32, PICIE_ACT_BF16 or PICIE_ACT_F16
// defined. `act` is that type; arithmetic is f32. The software GPU of the tests compiles the same
// files with the host's compiler, after its own shim.h (tests/softgpu/), which defines `SHARED` and
// `DYNAMIC_SHARED` and everything that CUDA's headers give here.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>

// A shared array of fixed size. NOTE: in the software GPU it is a pointer, so `sizeof` must not be
// used on it.
#define SHARED(type, name, count) __shared__ __align__(16) type name[count]
// The shared memory whose size the launcher gives; at most one in a kernel.
#define DYNAMIC_SHARED(type, name)                                \
    extern __shared__ __align__(16) unsigned char picie_shared[]; \
    type* name = reinterpret_cast<type*>(picie_shared)
#endif

#if defined(PICIE_ACT_F32)
typedef float act;
#define PICIE_SUFFIX(name) name##_f32
#elif defined(PICIE_ACT_BF16)
typedef __nv_bfloat16 act;
#define PICIE_SUFFIX(name) name##_bf16
#elif defined(PICIE_ACT_F16)
typedef __half act;
#define PICIE_SUFFIX(name) name##_f16
#else
#error "define PICIE_ACT_F32, PICIE_ACT_BF16 or PICIE_ACT_F16"
#endif

// An entry: `KERNEL(norm_stats, 256)(outputs, inputs, sizes, scalars) { … }` is launched with
// blocks of 256 threads, and is called norm_stats_<type> in the binary. build.rs reads these heads,
// the integer constants of all files and the structs that kernels take, and writes the launchers'
// typed arguments from them: a pointer becomes a slot, `Maybe<…>` an optional slot, `int` and
// `size_t` a checked size, `bool` a flag (cuda/generate.rs).
//
// `KERNEL(norm_stats, 256, 4)` also says how many blocks a multiprocessor is to hold. ptxas then
// spends the registers that those leave, and lets loads wait side by side; without it, it saves
// registers for blocks that no grid has, and puts loads of one loop behind each other's use.
#define KERNEL(name, ...) \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__) PICIE_SUFFIX(name)

// A pointer parameter that may be null.
template <class T>
using Maybe = T*;

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;
// Channels that a thread of most kernels has: one 128-bit access of a 16-bit type.
constexpr int VECTOR = 8;
// Bytes of shared memory that a block has without asking for more.
constexpr int PLAIN_SHARED = 48 << 10;
// The most that a block can ask for on every GPU that the kernels are compiled for.
constexpr int MOST_SHARED = 99 << 10;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }

#if defined(PICIE_ACT_F32)
__device__ __forceinline__ act to_act(float x) { return x; }
#elif defined(PICIE_ACT_BF16)
__device__ __forceinline__ act to_act(float x) { return __float2bfloat16(x); }
#else
__device__ __forceinline__ act to_act(float x) { return __float2half(x); }
#endif

// Two floats as two neighbours of a 16-bit type, `lo` in the lower half.
__device__ __forceinline__ unsigned pack_bf16(float lo, float hi) {
#ifdef __CUDA_ARCH__
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(hi), "f"(lo));
    return pair;
#else
    return __bfloat16_as_ushort(__float2bfloat16(lo)) |
           static_cast<unsigned>(__bfloat16_as_ushort(__float2bfloat16(hi))) << 16;
#endif
}
__device__ __forceinline__ unsigned pack_f16(float lo, float hi) {
#ifdef __CUDA_ARCH__
    unsigned pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(hi), "f"(lo));
    return pair;
#else
    return __half_as_ushort(__float2half(lo)) |
           static_cast<unsigned>(__half_as_ushort(__float2half(hi))) << 16;
#endif
}
// Two activations of a 16-bit type.
__device__ __forceinline__ unsigned pack_act(float lo, float hi) {
#if defined(PICIE_ACT_F16)
    return pack_f16(lo, hi);
#else
    return pack_bf16(lo, hi);
#endif
}

// One store of 8 bytes of device memory, and of 16. NOTE: the compiler takes the store of an
// aggregate of 16-bit elements apart, and that of a uint2.
__device__ __forceinline__ void store64(void* p, unsigned x, unsigned y) {
    __stwb(static_cast<uint2*>(p), make_uint2(x, y));
}
__device__ __forceinline__ void store128(void* p, unsigned x, unsigned y, unsigned z, unsigned w) {
    __stwb(static_cast<uint4*>(p), make_uint4(x, y, z, w));
}

// Four activations as f32, and eight.
struct F4 {
    float v[4];
};
struct F8 {
    float v[8];
};
static_assert(sizeof(F8) == VECTOR * sizeof(float), "an F8 holds a vector of channels");

// N activations as they lie in memory, aligned for the widest access that holds them.
template <int N>
struct alignas(sizeof(act) * N > 16 ? 16 : sizeof(act) * N) Pack {
    act v[N];
};

// p is aligned to 4 activations.
__device__ __forceinline__ F4 load4(const act* p) {
    const Pack<4> pack = *reinterpret_cast<const Pack<4>*>(p);
    F4 out;
#pragma unroll
    for (int i = 0; i < 4; ++i) out.v[i] = to_float(pack.v[i]);
    return out;
}

// As load4, of device memory.
__device__ __forceinline__ void store4(act* p, const F4& x) {
#if defined(PICIE_ACT_F32)
    *reinterpret_cast<float4*>(p) = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
#else
    store64(p, pack_act(x.v[0], x.v[1]), pack_act(x.v[2], x.v[3]));
#endif
}

// p is aligned to 8 activations: one 128-bit access, two where act is f32. What is loaded ahead is
// kept as it lies in memory.
__device__ __forceinline__ Pack<8> load_pack(const act* p) {
    return *reinterpret_cast<const Pack<8>*>(p);
}

__device__ __forceinline__ F8 unpack(const Pack<8>& pack) {
    F8 out;
#if defined(PICIE_ACT_BF16)
    // NOTE: the compiler takes two instructions for the upper half of a word.
    unsigned words[4];
    memcpy(words, &pack, sizeof words);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        out.v[2 * i] = __uint_as_float(words[i] << 16);
        out.v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
#else
#pragma unroll
    for (int i = 0; i < 8; ++i) out.v[i] = to_float(pack.v[i]);
#endif
    return out;
}

__device__ __forceinline__ F8 load8(const act* p) { return unpack(load_pack(p)); }

// As load8, of device memory.
__device__ __forceinline__ void store8(act* p, const F8& x) {
#if defined(PICIE_ACT_F32)
    *reinterpret_cast<float4*>(p) = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
    *reinterpret_cast<float4*>(p + 4) = make_float4(x.v[4], x.v[5], x.v[6], x.v[7]);
#else
    store128(p, pack_act(x.v[0], x.v[1]), pack_act(x.v[2], x.v[3]), pack_act(x.v[4], x.v[5]),
             pack_act(x.v[6], x.v[7]));
#endif
}

// Calls use(row, load(row)) for row, row + step, … < end, in this order. NOTE: the loads of DEPTH
// rows stand before the first use, without a branch between them: of a plain loop whose step is no
// constant the compiler makes load, use, branch, however often unrolled, and one load is in flight.
template <int DEPTH, class Index, class Load, class Use>
__device__ __forceinline__ void for_rows(Index row, Index end, Index step, const Load& load,
                                         const Use& use) {
    for (; row + (DEPTH - 1) * step < end; row += DEPTH * step) {
        decltype(load(row)) loaded[DEPTH];
#pragma unroll
        for (int i = 0; i < DEPTH; ++i) loaded[i] = load(row + i * step);
#pragma unroll
        for (int i = 0; i < DEPTH; ++i) use(row + i * step, loaded[i]);
    }
    for (; row < end; row += step) use(row, load(row));
}

// The larger of both, NaN where either is NaN: fmaxf drops NaN, and with it the first sign that a
// run has gone wrong.
__device__ __forceinline__ float max_nan(float a, float b) {
#ifdef __CUDA_ARCH__
    float larger;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
    return larger;
#else
    return a > b || a != a ? a : b;
#endif
}

// 1/x within an ulp, in one instruction.
__device__ __forceinline__ float reciprocal(float x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return 1.0f / x;
#endif
}

// The sum of x over all lanes of a warp, returned in every lane. All 32 must call it.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int step = WARP / 2; step > 0; step >>= 1) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

// The largest x of all lanes, returned in every lane.
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int step = WARP / 2; step > 0; step >>= 1)
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, step));
    return x;
}
