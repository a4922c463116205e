// bfloat16 and half as CUDA has them: 16 bits in memory, f32 in registers, rounded to nearest even;
// NaN becomes 0x7fff.
#pragma once

#include <stdint.h>
#include <string.h>

inline uint32_t __float_as_uint(float v) {
    uint32_t u;
    memcpy(&u, &v, 4);
    return u;
}
inline float __uint_as_float(uint32_t u) {
    float v;
    memcpy(&v, &u, 4);
    return v;
}
inline int __float_as_int(float v) { return int(__float_as_uint(v)); }
inline float __int_as_float(int i) { return __uint_as_float(uint32_t(i)); }

struct alignas(2) __nv_bfloat16 {
    uint16_t bits;
};
struct alignas(2) __half {
    uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 v) { return __uint_as_float(uint32_t(v.bits) << 16); }

inline __nv_bfloat16 __float2bfloat16(float v) {
    const uint32_t u = __float_as_uint(v);
    if ((u & 0x7fffffff) > 0x7f800000) return {0x7fff};
    return {uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16)};
}

inline float __half2float(__half v) {
    const uint32_t sign = uint32_t(v.bits & 0x8000) << 16;
    uint32_t u = uint32_t(v.bits & 0x7fff) << 13;
    const uint32_t exponent = u & 0x0f800000;
    if (exponent == 0x0f800000) {
        u += 0x70000000;  // infinities and NaN: 31 becomes 255
    } else if (exponent == 0) {
        u = __float_as_uint(float(v.bits & 0x7fff) * 0x1p-24f);
    } else {
        u += 0x38000000;  // the bias: 15 becomes 127
    }
    return __uint_as_float(u | sign);
}

inline __half __float2half(float v) {
    uint32_t u = __float_as_uint(v);
    const uint32_t sign = u >> 16 & 0x8000;
    u &= 0x7fffffff;
    if (u > 0x7f800000) return {0x7fff};
    if (u >= 0x47800000) return {uint16_t(sign | 0x7c00)};
    if (u < 0x38800000) {
        // Below 2⁻¹⁴ halves step by 2⁻²⁴, as floats do in [½, 1): adding ½ rounds.
        u = __float_as_uint(__uint_as_float(u) + 0.5f) - 0x3f000000;
    } else {
        u = (u + 0xfff + (u >> 13 & 1) - 0x38000000) >> 13;
    }
    return {uint16_t(sign | u)};
}

inline __nv_bfloat16 __float2bfloat16_rn(float v) { return __float2bfloat16(v); }
inline __half __float2half_rn(float v) { return __float2half(v); }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 v) { return v.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short u) { return {u}; }
inline unsigned short __half_as_ushort(__half v) { return v.bits; }
inline __half __ushort_as_half(unsigned short u) { return {u}; }
