// Each direction is a product of matrices with the patches of one image; sums are f32, storage is rounded once.
// Nothing here is worth a single step in a debugger, and everything worth its vectors.
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

template <size_t M>
void tile(size_t depth, Left left, const float* b, size_t ldb, float* c, size_t ldc) {
    Eight sum[M][2] = {};
    for (size_t l = 0; l < depth; ++l, b += ldb) {
        const Eight b0 = *reinterpret_cast<const Eight*>(b), b1 = *reinterpret_cast<const Eight*>(b + 8);
        for (size_t i = 0; i < M; ++i) {
            const float a = left.a[i * left.row + l * left.column];
            sum[i][0] += a * b0;
            sum[i][1] += a * b1;
        }
    }
    for (size_t i = 0; i < M; ++i) {
        Eight* to = reinterpret_cast<Eight*>(c + i * ldc);
        to[0] += sum[i][0];
        to[1] += sum[i][1];
    }
}

// The same for fewer columns.
void edge(size_t m, size_t n, size_t depth, Left left, const float* b, size_t ldb, float* c, size_t ldc) {
    for (size_t i = 0; i < m; ++i) {
        float sum[WIDE] = {};
        for (size_t l = 0; l < depth; ++l) {
            const float a = left.a[i * left.row + l * left.column];
            for (size_t j = 0; j < n; ++j) sum[j] += a * b[l * ldb + j];
        }
        for (size_t j = 0; j < n; ++j) c[i * ldc + j] += sum[j];
    }
}

// C (m, n) += A (m, depth) · B (depth, n).
void product(size_t m, size_t n, size_t depth, Left left, const float* b, float* c) {
    for (size_t j = 0; j < n; j += WIDE) {
        for (size_t i = 0; i < m; i += ROWS) {
            const size_t rows = std::min(ROWS, m - i);
            const Left from{left.a + i * left.row, left.row, left.column};
            float* to = c + i * n + j;
            if (n - j < WIDE) {
                edge(rows, n - j, depth, from, b + j, n, to, n);
                continue;
            }
            switch (rows) {
                case 1: tile<1>(depth, from, b + j, n, to, n); break;
                case 2: tile<2>(depth, from, b + j, n, to, n); break;
                case 3: tile<3>(depth, from, b + j, n, to, n); break;
                case 4: tile<4>(depth, from, b + j, n, to, n); break;
                case 5: tile<5>(depth, from, b + j, n, to, n); break;
                default: tile<6>(depth, from, b + j, n, to, n);
            }
        }
    }
}

// Calls visit(patch element, image element) for each run of c channels that lies inside of the image.
template <class Visit>
void for_patches(const Problem& v, Visit visit) {
    const size_t patch = v.r * v.s * v.c;
    for (size_t p = 0; p < v.p; ++p) {
        for (size_t q = 0; q < v.q; ++q) {
            for (size_t i = 0; i < v.r; ++i) {
                const size_t row = p * v.stride + i - v.pad;  // wraps around above the image
                if (row >= v.h) continue;
                for (size_t j = 0; j < v.s; ++j) {
                    const size_t column = q * v.stride + j - v.pad;
                    if (column >= v.w) continue;
                    visit((p * v.q + q) * patch + (i * v.s + j) * v.c, (row * v.w + column) * v.c);
                }
            }
        }
    }
}

Floats unfold(const Problem& v, const Floats& image) {
    Floats patches(v.p * v.q * v.r * v.s * v.c);
    for_patches(v, [&](size_t to, size_t from) { memcpy(&patches[to], &image[from], v.c * sizeof(float)); });
    return patches;
}

void finish(const Problem& v, const Pointers& at, size_t start, Floats& y) {
    for (size_t i = 0; i < y.size(); ++i) {
        if (v.residual) y[i] += get(at.residual, v.y_type, start + i);
        if (v.bias) y[i] += static_cast<const float*>(at.bias)[i % v.k];
        if (v.relu) y[i] = y[i] < 0 ? 0 : y[i];
    }
}

}  // namespace

void convolve(const Problem& v, const Pointers& at) {
    const size_t pixels = v.p * v.q, patch = v.r * v.s * v.c;
    const size_t x_len = v.h * v.w * v.c, y_len = pixels * v.k, w_len = v.k * patch;
    Floats weight, turned, gradient;
    if (v.direction == Direction::BackwardWeight) {
        gradient.resize(w_len);
    } else {
        weight = load(at.w, v.w_type, 0, w_len, v.rounds_inputs);
    }
    if (v.direction == Direction::Forward) {
        turned.resize(w_len);
        for (size_t k = 0; k < v.k; ++k) {
            for (size_t i = 0; i < patch; ++i) turned[i * v.k + k] = weight[k * patch + i];
        }
    }
    for (size_t image = 0; image < v.n; ++image) {
        const size_t x_start = image * x_len, y_start = image * y_len;
        switch (v.direction) {
            case Direction::Forward: {
                const Floats patches = unfold(v, load(at.x, v.x_type, x_start, x_len, v.rounds_inputs));
                Floats y(y_len);
                product(pixels, v.k, patch, {patches.data(), patch, 1}, turned.data(), y.data());
                finish(v, at, y_start, y);
                store(at.y, v.y_type, y_start, y, false);
                break;
            }
            case Direction::BackwardData: {
                const Floats dy = load(at.y, v.y_type, y_start, y_len, v.rounds_inputs);
                Floats patches(pixels * patch), dx(x_len);
                product(pixels, patch, v.k, {dy.data(), v.k, 1}, weight.data(), patches.data());
                for_patches(v, [&](size_t from, size_t to) {
                    for (size_t c = 0; c < v.c; ++c) dx[to + c] += patches[from + c];
                });
                store(at.x, v.x_type, x_start, dx, v.accumulate);
                break;
            }
            case Direction::BackwardWeight: {
                const Floats patches = unfold(v, load(at.x, v.x_type, x_start, x_len, v.rounds_inputs));
                const Floats dy = load(at.y, v.y_type, y_start, y_len, v.rounds_inputs);
                product(v.k, patch, pixels, {dy.data(), 1, v.k}, patches.data(), gradient.data());
                break;
            }
        }
    }
    if (v.direction == Direction::BackwardWeight) store(at.w, v.w_type, 0, gradient, v.accumulate);
}

}  // namespace softcudnn
