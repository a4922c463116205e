// What an output of a view reads along an axis: a triangle convolved with a Gaussian, as weights.
#pragma once
#include "view.cuh"

// How an axis of `len` elements is resampled: `out` samples of the window start..start + side.
struct Axis {
    int len, out, start, side;
    bool antialias, flip;
};

// What an output along an axis reads: elements first..first + count lie below its triangle, and
// with the blur it reads elements from..to.
struct Reach {
    int first, count, from, to;
    // The triangle: element first + i weighs 1 − |i − peak|·slope, times `scale`.
    float peak, slope, scale;
};

// The unnormalised Gaussian at distances 0..=radius, and tail[i] = Σ bell[i..].
struct Blur {
    const float *bell, *tail;
    int radius;
};

__device__ __forceinline__ Reach reach_of(const Axis& axis, int o, const Blur& blur) {
    // NOTE: in f64, since a position of hundreds in f32 would be off by 3e-5 of a pixel, and the
    // weights with it.
    const double step = double(axis.side) / axis.out;
    const double half = axis.antialias && step > 1 ? step : 1;
    const double centre = ((axis.flip ? axis.out - 1 - o : o) + 0.5) * step - 0.5;
    const int first = max(int(floor(centre - half)) + 1, 0);
    const int last = min(int(ceil(centre + half)), axis.side);
    Reach reach;
    reach.first = axis.start + first;
    reach.count = last - first;
    reach.from = max(reach.first - blur.radius, 0);
    reach.to = min(reach.first + reach.count + blur.radius, axis.len);
    reach.peak = float(centre - first);
    reach.slope = float(1 / half);
    float total = 0;
    for (int i = 0; i < reach.count; ++i)
        total += fmaxf(1 - fabsf(i - reach.peak) * reach.slope, 0.0f);
    // NOTE: the only element of an axis of one is both of its edges, but `weight` takes it for one.
    reach.scale = 1 / (total * (axis.len == 1 ? blur.tail[0] : 2 * blur.tail[0] - 1));
    return reach;
}

// The weight of element `at` in an output: its share of the blurred elements below the triangle.
// Elements at an edge stand for all that lie beyond as well.
__device__ __forceinline__ float weight(const Reach& reach, int at, int len, const Blur& blur) {
    const float* const share = at == 0 || at == len - 1 ? blur.tail : blur.bell;
    const int begin = max(reach.first, at - blur.radius) - reach.first;
    const int end = min(reach.first + reach.count, at + blur.radius + 1) - reach.first;
    float sum = 0;
#pragma unroll 1
    for (int i = begin; i < end; ++i) {
        sum +=
            fmaxf(1 - fabsf(i - reach.peak) * reach.slope, 0.0f) * share[abs(reach.first + i - at)];
    }
    return sum * reach.scale;
}
