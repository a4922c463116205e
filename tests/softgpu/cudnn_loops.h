// A convolution with its epilogue as plain loops over NHWC tensors.
#pragma once

#include <stddef.h>

namespace softcudnn {

// cudnnDataType_t.
enum Data : int { FLOAT = 0, HALF = 2, BFLOAT16 = 9 };
inline size_t size_of(Data type) { return type == FLOAT ? 4 : 2; }

enum class Direction { Forward, BackwardData, BackwardWeight };

// x (n, h, w, c), filter (k, r, s, c), y (n, p, q, k).
struct Problem {
    Direction direction = Direction::Forward;
    size_t n, h, w, c, k, r, s, p, q, stride, pad;
    Data x_type, w_type, y_type;
    bool accumulate = false;  // the output is added to
    bool bias = false, residual = false,
         relu = false;  // of the forward; the residual is of y's type
    Data bias_type = FLOAT;
    bool keeps_nan = false;      // in the ReLU, which makes it 0 otherwise
    bool rounds_inputs = false;  // as a TF32 engine does
    double cut =
        0;  // sums are made of two parts: up to here, in shares of their length, and the rest
};

struct Pointers {
    void *x = nullptr, *w = nullptr, *y = nullptr;
    const void *bias = nullptr, *residual = nullptr;
};

void convolve(const Problem& problem, const Pointers& at);

}  // namespace softcudnn
