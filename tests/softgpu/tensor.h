// What the software GPU has in place of tensor cores and asynchronous copies: the functions of
// cuda/mma.cuh, and the conversions of pairs.
#pragma once

namespace softgpu {

// The factors of an mma, the right one transposed. Lanes write what they bring into `factors()`,
// and read what all have brought when they have met.
struct Factors {
    float a[16][16], b[8][16];
};
Factors& factors();
const Factors& met_with_factors(const Site* site);

// As exchange, of a row of a matrix.
struct Row {
    uint16_t of[8];
};
const Row* exchange_rows(const Site* site, const Row& mine);

// Fails unless 16 bytes of shared memory begin at p, on a multiple of 16.
void check_row(const Site* site, const void* p);

// Copies of the running thread (copies.h); `from` null: zeros.
void start_copy(const Site* site, void* to, const void* from);
void commit_copies();
void wait_copies(unsigned left);

// The operations at one site. NOTE: without linkage, as each type of activations has its own, and
// the linker would keep one of three for all.
namespace {
struct Tensor {
    const Site* site;

    static void spread_bf16(float* to, unsigned pair) {
        to[0] = __uint_as_float(pair << 16);
        to[1] = __uint_as_float(pair & 0xffff0000u);
    }
    static void spread_act(float* to, unsigned pair) {
#if defined(PICIE_ACT_F16)
        to[0] = __half2float(__ushort_as_half(static_cast<unsigned short>(pair)));
        to[1] = __half2float(__ushort_as_half(static_cast<unsigned short>(pair >> 16)));
#else
        spread_bf16(to, pair);
#endif
    }
    // In eights, which the host computes at once.
    static float dot(const float* x, const float* y) {
        float sums[8];
        for (int i = 0; i < 8; ++i) sums[i] = x[i] * y[i] + x[i + 8] * y[i + 8];
        for (int i = 0; i < 4; ++i) sums[i] += sums[i + 4];
        return (sums[0] + sums[2]) + (sums[1] + sums[3]);
    }

    void multiply(void (*spread)(float*, unsigned), float (&d)[4], const unsigned (&a)[4],
                  const unsigned (&b)[2]) const {
        const unsigned g = here.lane / 4, t = here.lane % 4;
        Factors& mine = factors();
        for (unsigned i = 0; i < 4; ++i) spread(mine.a[g + i % 2 * 8] + 2 * t + i / 2 * 8, a[i]);
        for (unsigned i = 0; i < 2; ++i) spread(mine.b[g] + 2 * t + 8 * i, b[i]);
        const Factors& all = met_with_factors(site);
        for (unsigned i = 0; i < 4; ++i) d[i] += dot(all.a[g + i / 2 * 8], all.b[2 * t + i % 2]);
    }

    void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) const {
        multiply(spread_bf16, d, a, b);
    }
    void mma_act(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) const {
        multiply(spread_act, d, a, b);
    }

    // NOTE: each lane reads its row before it waits for the others, so that rows which others have
    // yet to write are seen to be missing.
    template <bool TRANSPOSED>
    void load_matrix(unsigned (&r)[4], const void* row) const {
        check_row(site, row);
        traffic(row, sizeof(Row), false);
        const Row* all = exchange_rows(site, *static_cast<const Row*>(row));
        const unsigned g = here.lane / 4, t = here.lane % 4;
        for (unsigned m = 0; m < 4; ++m) {
            const auto at = [&](unsigned i, unsigned j) { return unsigned(all[8 * m + i].of[j]); };
            r[m] = TRANSPOSED ? at(2 * t, g) | at(2 * t + 1, g) << 16
                              : at(g, 2 * t) | at(g, 2 * t + 1) << 16;
        }
    }

    void copy16(void* to, const void* from, bool exists = true) const {
        if (exists) traffic(from, sizeof(Row), false);
        traffic(to, sizeof(Row), true);
        start_copy(site, to, exists ? from : nullptr);
    }
};
}  // namespace

}  // namespace softgpu

// NOTE: macros without parentheses, so that `load_matrix<true>(r, row)` is a site of its own.
#define SOFTGPU_TENSOR(op) \
    softgpu::Tensor { SOFTGPU_SITE(#op, false) }
#define mma SOFTGPU_TENSOR(mma).mma
#define mma_act SOFTGPU_TENSOR(mma_act).mma_act
#define load_matrix SOFTGPU_TENSOR(load_matrix).load_matrix
#define copy16 SOFTGPU_TENSOR(copy16).copy16
inline unsigned equal_pairs(unsigned x, unsigned y) {
    const auto half = [](unsigned pair, int at) {
        return __half2float(__ushort_as_half(static_cast<unsigned short>(pair >> 16 * at)));
    };
    return (half(x, 0) == half(y, 0) ? 0x3c00u : 0) | (half(x, 1) == half(y, 1) ? 0x3c000000u : 0);
}
inline void commit() { softgpu::commit_copies(); }
template <int N>
void wait() {
    softgpu::wait_copies(N);
}
