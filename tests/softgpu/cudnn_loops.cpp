// Each direction is a product of matrices with the patches of a few images; sums are f32, storage
// is rounded once. Nothing here is worth a single step in a debugger, and everything worth its
// vectors.
#pragma GCC optimize("O3")
#include "cudnn_loops.h"

#include <string.h>

#include <algorithm>
#include <vector>

#include "numbers.h"

namespace softcudnn {

namespace {

using Floats = std::vector<float>;

float get(const void* p, Data type, size_t i) {
    switch (type) {
        case BFLOAT16: return __bfloat162float(static_cast<const __nv_bfloat16*>(p)[i]);
        case HALF: return __half2float(static_cast<const __half*>(p)[i]);
        default: return static_cast<const float*>(p)[i];
    }
}

Floats load(const void* p, Data type, size_t start, size_t len, bool rounds) {
    Floats out(len);
    for (size_t i = 0; i < len; ++i) out[i] = get(p, type, start + i);
    if (rounds) {
        for (float& v : out) v = __bfloat162float(__float2bfloat16(v));
    }
    return out;
}

void store(void* p, Data type, size_t start, const Floats& from, bool accumulate) {
    for (size_t i = 0; i < from.size(); ++i) {
        const size_t at = start + i;
        const float v = accumulate ? from[i] + get(p, type, at) : from[i];
        switch (type) {
            case BFLOAT16: static_cast<__nv_bfloat16*>(p)[at] = __float2bfloat16(v); break;
            case HALF: static_cast<__half*>(p)[at] = __float2half(v); break;
            default: static_cast<float*>(p)[at] = v;
        }
    }
}

// Element (i, l) of A is a[i * row + l * column]; B and C are row-major.
struct Left {
    const float* a;
    size_t row, column;
};

constexpr size_t ROWS = 6, WIDE = 16;
typedef float Eight __attribute__((vector_size(32), aligned(4)));

// out (M, WIDE) = M rows of A · panel (depth, WIDE).
template <size_t M>
void tile(size_t depth, Left left, const float* panel, float* out) {
    Eight sum[M][2] = {};
    for (size_t l = 0; l < depth; ++l, panel += WIDE) {
        const Eight b0 = *reinterpret_cast<const Eight*>(panel),
                    b1 = *reinterpret_cast<const Eight*>(panel + 8);
        for (size_t i = 0; i < M; ++i) {
            const float a = left.a[i * left.row + l * left.column];
            sum[i][0] += a * b0;
            sum[i][1] += a * b1;
        }
    }
    memcpy(out, sum, sizeof sum);
}

// C (m, n) += A (m, depth) · B (depth, n).
void product(size_t m, size_t n, size_t depth, Left left, const float* b, float* c) {
    Floats panel(depth * WIDE), out(ROWS * WIDE);
    for (size_t j = 0; j < n; j += WIDE) {
        // A panel of B is read once from its far rows, and zeros fill it up.
        const size_t columns = std::min(WIDE, n - j);
        for (size_t l = 0; l < depth; ++l)
            memcpy(&panel[l * WIDE], b + l * n + j, columns * sizeof(float));
        for (size_t l = 0; columns < WIDE && l < depth; ++l)
            std::fill(&panel[l * WIDE + columns], &panel[l * WIDE] + WIDE, 0.0f);
        for (size_t i = 0; i < m; i += ROWS) {
            const size_t rows = std::min(ROWS, m - i);
            const Left from{left.a + i * left.row, left.row, left.column};
            switch (rows) {
                case 1: tile<1>(depth, from, panel.data(), out.data()); break;
                case 2: tile<2>(depth, from, panel.data(), out.data()); break;
                case 3: tile<3>(depth, from, panel.data(), out.data()); break;
                case 4: tile<4>(depth, from, panel.data(), out.data()); break;
                case 5: tile<5>(depth, from, panel.data(), out.data()); break;
                default: tile<6>(depth, from, panel.data(), out.data());
            }
            for (size_t r = 0; r < rows; ++r) {
                for (size_t k = 0; k < columns; ++k) c[(i + r) * n + j + k] += out[r * WIDE + k];
            }
        }
    }
}

// The same, as the sum of two: over the first `cut` of the depth, and over the rest.
void product_in_two(size_t m, size_t n, size_t depth, double cut, Left left, const float* b,
                    float* c) {
    const size_t first = size_t(cut * double(depth));
    if (first) product(m, n, first, left, b, c);
    product(m, n, depth - first, {left.a + first * left.column, left.row, left.column},
            b + first * n, c);
}

// Calls visit(patch element, image element) for each run of c channels that lies inside of one of
// `images`.
template <class Visit>
void for_patches(const Problem& v, size_t images, Visit visit) {
    const size_t patch = v.r * v.s * v.c;
    for (size_t n = 0; n < images; ++n) {
        for (size_t pixel = 0; pixel < v.p * v.q; ++pixel) {
            const size_t p = pixel / v.q, q = pixel % v.q;
            for (size_t i = 0; i < v.r; ++i) {
                const size_t row = p * v.stride + i - v.pad;  // wraps around above the image
                if (row >= v.h) continue;
                for (size_t j = 0; j < v.s; ++j) {
                    const size_t column = q * v.stride + j - v.pad;
                    if (column >= v.w) continue;
                    visit((n * v.p * v.q + pixel) * patch + (i * v.s + j) * v.c,
                          ((n * v.h + row) * v.w + column) * v.c);
                }
            }
        }
    }
}

Floats unfold(const Problem& v, size_t images, const Floats& x) {
    Floats patches(images * v.p * v.q * v.r * v.s * v.c);
    for_patches(v, images, [&](size_t to, size_t from) {
        memcpy(&patches[to], &x[from], v.c * sizeof(float));
    });
    return patches;
}

void finish(const Problem& v, const Pointers& at, size_t start, Floats& y) {
    for (size_t i = 0; i < y.size(); ++i) {
        if (v.residual) y[i] += get(at.residual, v.y_type, start + i);
        if (v.bias) y[i] += get(at.bias, v.bias_type, i % v.k);
        if (v.relu) y[i] = y[i] < 0 || (y[i] != y[i] && !v.keeps_nan) ? 0 : y[i];
    }
}

// The transpose of a (rows, columns), in squares that fit a cache.
Floats turn(const Floats& a, size_t rows, size_t columns) {
    constexpr size_t SIDE = 32;
    Floats out(a.size());
    for (size_t i0 = 0; i0 < rows; i0 += SIDE) {
        for (size_t j0 = 0; j0 < columns; j0 += SIDE) {
            for (size_t j = j0; j < std::min(j0 + SIDE, columns); ++j) {
                for (size_t i = i0; i < std::min(i0 + SIDE, rows); ++i)
                    out[j * rows + i] = a[i * columns + j];
            }
        }
    }
    return out;
}

}  // namespace

void convolve(const Problem& v, const Pointers& at) {
    // So many rows make up for reading the weights again.
    constexpr size_t ENOUGH = 192;
    const size_t patch = v.r * v.s * v.c,
                 group = std::min(v.n, (ENOUGH + v.p * v.q - 1) / (v.p * v.q));
    Floats weight, gradient;
    if (v.direction == Direction::BackwardWeight) {
        gradient.resize(v.k * patch);
    } else {
        weight = load(at.w, v.w_type, 0, v.k * patch, v.rounds_inputs);
    }
    if (v.direction == Direction::Forward) weight = turn(weight, v.k, patch);
    for (size_t first = 0; first < v.n; first += group) {
        const size_t images = std::min(group, v.n - first), pixels = images * v.p * v.q;
        const size_t x_start = first * v.h * v.w * v.c, x_len = images * v.h * v.w * v.c;
        const size_t y_start = first * v.p * v.q * v.k, y_len = pixels * v.k;
        const auto x = [&] { return load(at.x, v.x_type, x_start, x_len, v.rounds_inputs); };
        const auto dy = [&] { return load(at.y, v.y_type, y_start, y_len, v.rounds_inputs); };
        switch (v.direction) {
            case Direction::Forward: {
                const Floats patches = unfold(v, images, x());
                Floats y(y_len);
                product_in_two(pixels, v.k, patch, v.cut, {patches.data(), patch, 1}, weight.data(),
                               y.data());
                finish(v, at, y_start, y);
                store(at.y, v.y_type, y_start, y, false);
                break;
            }
            case Direction::BackwardData: {
                const Floats from = dy();
                Floats patches(pixels * patch), dx(x_len);
                product_in_two(pixels, patch, v.k, v.cut, {from.data(), v.k, 1}, weight.data(),
                               patches.data());
                for_patches(v, images, [&](size_t from, size_t to) {
                    for (size_t c = 0; c < v.c; ++c) dx[to + c] += patches[from + c];
                });
                store(at.x, v.x_type, x_start, dx, v.accumulate);
                break;
            }
            case Direction::BackwardWeight: {
                const Floats patches = unfold(v, images, x()), from = dy();
                product_in_two(v.k, patch, pixels, v.cut, {from.data(), 1, v.k}, patches.data(),
                               gradient.data());
                break;
            }
        }
    }
    if (v.direction == Direction::BackwardWeight) store(at.w, v.w_type, 0, gradient, v.accumulate);
}

}  // namespace softcudnn
