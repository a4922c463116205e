// What the software GPU has in place of tensor cores and asynchronous copies: the functions of
// cuda/mma.cuh, and the conversions of pairs.
#pragma once

namespace softgpu {

// What a lane brings to an operation that needs more than 8 bytes of it.
struct Words {
    uint32_t of[6];
};
// As exchange, of words.
const Words* exchange_words(const Site* site, const Words& mine);

// Fails unless 16 bytes of shared memory begin at p, on a multiple of 16.
void check_row(const Site* site, const void* p);

// Copies of the running thread (copies.h); `from` null: zeros.
void start_copy(const Site* site, void* to, const void* from);
void commit_copies();
void wait_copies(unsigned left);

// The operations at one site.
struct Tensor {
    const Site* site;

    static float half(uint32_t pair, int which) {
        return __uint_as_float(which ? pair & 0xffff0000u : pair << 16);
    }

    void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) const {
        const Words* all = exchange_words(site, {{a[0], a[1], a[2], a[3], b[0], b[1]}});
        const unsigned g = here.lane / 4, t = here.lane % 4;
        for (unsigned i = 0; i < 4; ++i) {
            const unsigned below = i / 2, column = 2 * t + i % 2;
            float sum = 0;
            for (unsigned k = 0; k < 16; ++k) {
                const uint32_t x = all[4 * g + k % 8 / 2].of[below + k / 8 * 2];
                const uint32_t y = all[4 * column + k % 8 / 2].of[4 + k / 8];
                sum += half(x, k % 2) * half(y, k % 2);
            }
            d[i] += sum;
        }
    }

    // NOTE: each lane reads its row before it waits for the others, so that rows which others have
    // yet to write are seen to be missing.
    template <bool TRANSPOSED>
    void load_matrix(unsigned (&r)[4], const void* row) const {
        check_row(site, row);
        Words mine{};
        memcpy(mine.of, row, 16);
        const Words* all = exchange_words(site, mine);
        const unsigned g = here.lane / 4, t = here.lane % 4;
        for (unsigned m = 0; m < 4; ++m) {
            const auto at = [&](unsigned i, unsigned j) {
                return all[8 * m + i].of[j / 2] >> 16 * (j % 2) & 0xffff;
            };
            r[m] = TRANSPOSED ? at(2 * t, g) | at(2 * t + 1, g) << 16
                              : at(g, 2 * t) | at(g, 2 * t + 1) << 16;
        }
    }

    void copy16(void* to, const void* from, bool exists = true) const {
        start_copy(site, to, exists ? from : nullptr);
    }
};

}  // namespace softgpu

// NOTE: macros without parentheses, so that `load_matrix<true>(r, row)` is a site of its own.
#define SOFTGPU_TENSOR(op) \
    softgpu::Tensor { SOFTGPU_SITE(#op, false) }
#define mma SOFTGPU_TENSOR(mma).mma
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
