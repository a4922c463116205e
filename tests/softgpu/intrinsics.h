// CUDA's functions without barriers: arithmetic, bits, cached loads, integer atomics.
#pragma once

// NOTE: macros, since glibc declares __expf and its kin for itself without defining them.
#define __expf(x) expf(x)
#define __exp10f(x) exp10f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __frsqrt_rn(float x) { return rsqrtf(x); }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
// NOTE: volatile keeps the compiler from fusing them, which is what they are for.
inline float __fmul_rn(float x, float y) {
    volatile float z = x * y;
    return z;
}
inline float __fadd_rn(float x, float y) {
    volatile float z = x + y;
    return z;
}
inline float __fsub_rn(float x, float y) {
    volatile float z = x - y;
    return z;
}
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }

inline float __int2float_rn(int i) { return float(i); }
inline float __uint2float_rn(unsigned i) { return float(i); }
inline float __ll2float_rn(long long i) { return float(i); }
inline float __ull2float_rn(unsigned long long i) { return float(i); }

namespace softgpu {
// Conversions of a GPU saturate, and NaN becomes 0; in C++ both are undefined.
template <class I>
I saturate(float x, double low, double high) {
    return x != x ? I(0) : x <= low ? I(low) : x >= high ? I(high) : I(x);
}
}  // namespace softgpu
inline int __float2int_rz(float x) {
    return softgpu::saturate<int>(x, -2147483648.0, 2147483647.0);
}
inline int __float2int_rn(float x) { return __float2int_rz(rintf(x)); }
inline int __float2int_rd(float x) { return __float2int_rz(floorf(x)); }
inline int __float2int_ru(float x) { return __float2int_rz(ceilf(x)); }
inline unsigned __float2uint_rz(float x) {
    return softgpu::saturate<unsigned>(x, 0.0, 4294967295.0);
}
inline unsigned __float2uint_rn(float x) { return __float2uint_rz(rintf(x)); }

#define SOFTGPU_MIN_MAX(T)                           \
    inline T min(T a, T b) { return b < a ? b : a; } \
    inline T max(T a, T b) { return a < b ? b : a; }
SOFTGPU_MIN_MAX(int)
SOFTGPU_MIN_MAX(unsigned)
SOFTGPU_MIN_MAX(long)
SOFTGPU_MIN_MAX(unsigned long)
SOFTGPU_MIN_MAX(long long)
SOFTGPU_MIN_MAX(unsigned long long)
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(unsigned(v)); }
inline int __clzll(long long v) { return v == 0 ? 64 : __builtin_clzll((unsigned long long)v); }
// Bytes of y:x, one for each digit of `selector`. No digit of the kernels asks for a sign.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    const uint64_t both = uint64_t(y) << 32 | x;
    unsigned r = 0;
    for (int i = 0; i < 4; ++i) r |= unsigned(both >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
    return r;
}
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline unsigned __umulhi(unsigned a, unsigned b) {
    return unsigned((unsigned long long)a * b >> 32);
}
inline int __mulhi(int a, int b) { return int((long long)a * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline unsigned __brev(unsigned v) {
    unsigned r = 0;
    for (int i = 0; i < 32; ++i) r |= (v >> i & 1) << (31 - i);
    return r;
}

template <class T>
T __ldg(const T* p) {
    return *p;
}
template <class T>
T __ldcg(const T* p) {
    return *p;
}
template <class T>
T __ldcs(const T* p) {
    return *p;
}
template <class T>
void __stcg(T* p, T v) {
    *p = v;
}
template <class T>
void __stcs(T* p, T v) {
    *p = v;
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// Threads of the software GPU never run at once.
template <class T>
using Atomic = typename std::enable_if<std::is_integral<T>::value && sizeof(T) >= 4, T>::type;
template <class T>
Atomic<T> atomicExch(T* p, T v) {
    const T old = *p;
    *p = v;
    return old;
}
// NOTE: unsigned arithmetic, as a counter may wrap. `v` may be of another integer type, as at the
// GPU's overloads.
template <class T>
Atomic<T> atomicAdd(T* p, std::common_type_t<T> v) {
    return atomicExch(p, T((unsigned long long)*p + (unsigned long long)v));
}
template <class T>
Atomic<T> atomicSub(T* p, std::common_type_t<T> v) {
    return atomicExch(p, T((unsigned long long)*p - (unsigned long long)v));
}
template <class T>
Atomic<T> atomicMax(T* p, std::common_type_t<T> v) {
    return atomicExch(p, *p < v ? v : *p);
}
template <class T>
Atomic<T> atomicMin(T* p, std::common_type_t<T> v) {
    return atomicExch(p, v < *p ? v : *p);
}
template <class T>
Atomic<T> atomicOr(T* p, std::common_type_t<T> v) {
    return atomicExch(p, T(*p | v));
}
template <class T>
Atomic<T> atomicAnd(T* p, std::common_type_t<T> v) {
    return atomicExch(p, T(*p & v));
}
template <class T>
Atomic<T> atomicXor(T* p, std::common_type_t<T> v) {
    return atomicExch(p, T(*p ^ v));
}
template <class T>
Atomic<T> atomicCAS(T* p, std::common_type_t<T> seen, std::common_type_t<T> v) {
    return atomicExch(p, *p == seen ? v : *p);
}
