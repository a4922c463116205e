// Colours of stored pixels, and the photometric steps that a draw makes of them.
//
// A block writes its draw as a list of steps to shared memory, once, and `develop` walks it for
// several pixels at a time, so that no lane ever branches on its own. With fused multiply-adds and
// clamps that are part of them, a pixel's three channels take 6 instructions from bytes, 3 for
// brightness or contrast, 6 for saturation or grey and about 28 for the hue.
#pragma once
#include "draws.cuh"
#include "view.cuh"

// The colour of a level is a product, not a quotient, as on the CPU engine: the same bits.
constexpr float LEVEL = 1.0f / 255.0f;
// The bits of 2²³, to which a byte is added by writing it below, and that number's colour.
constexpr unsigned BIAS = 0x4b000000u;
constexpr float BIAS_LEVEL = 8388608.0f * LEVEL;

// The kinds of steps: x·scale + v[0]; x·scale + (v · x); the hue turned, in which v is where red,
// green and blue stand in 1..7 sextants after the turn. The first two clamp to 0..1.
constexpr int AFFINE = 1;
constexpr int MIX = 2;
constexpr int TURN = 3;

struct alignas(16) Step {
    float scale, v[3];
};

// The jitter's four steps and grey.
constexpr int MOST_STEPS = 5;

struct Steps {
    Step step[MOST_STEPS];
    // 2-bit fields, the first step's lowest; 0 behind the last.
    unsigned kinds;
};

// Writes the steps of a draw; only those before its contrast if `mean` is null. Steps that would
// change nothing are left out.
__device__ __forceinline__ void list_steps(Steps& to, const Photo& photo, const float* mean) {
    int count = 0;
    unsigned kinds = 0;
    const auto add = [&](unsigned kind, const Step& step) {
        to.step[count] = step;
        kinds |= kind << 2 * count++;
    };
    const auto mix = [&](float scale, float rest) {
        add(MIX, {scale, {rest * GREY_RED, rest * GREY_GREEN, rest * GREY_BLUE}});
    };
    bool whole = true;
#pragma unroll 1
    for (int field = 0; field < 8 && whole; field += 2) {
        switch (photo.order >> field & 3) {
            case 0:
                if (photo.brightness != 1) add(AFFINE, {photo.brightness, {}});
                break;
            case 1:
                whole = mean;
                if (mean && photo.contrast != 1)
                    add(AFFINE, {photo.contrast, {(1 - photo.contrast) * *mean}});
                break;
            case 2:
                if (photo.saturation != 1) mix(photo.saturation, 1 - photo.saturation);
                break;
            default:
                if (photo.hue == 0) break;
                Step turn{};
                for (int c = 0; c < 3; ++c) {
                    // −3..7 sextants.
                    const float at = 6 * photo.hue + float(2 * c);
                    turn.v[c] = at < 1 ? at + 6 : at;
                }
                add(TURN, turn);
        }
    }
    if (whole && photo.grey) mix(0, 1);
    to.kinds = kinds;
}

// Turns the hue at constant HSV value and saturation: with hue h in 0..6 sextants, a channel is the
// smallest plus the span times clamp(|h − 3| − 1) for red, clamp(2 − |h − 2|) for green and
// clamp(2 − |h − 4|) for blue.
__device__ __forceinline__ Colour rotate(const Colour& c, const Colour& stand) {
    const float top = fmaxf(c.r, fmaxf(c.g, c.b)), low = fminf(c.r, fminf(c.g, c.b));
    const float span = top - low;
    // NOTE: grey has no span and no hue: 0 times any finite number. Spans near the smallest number
    // added get a wrong hue, which times the span is nothing.
    const float scale = reciprocal(span + 1e-20f);
    const bool red = top == c.r, green = top == c.g;
    const float more = red ? c.g : green ? c.b : c.r, less = red ? c.b : green ? c.r : c.g;
    float hue = (more - less) * scale + (red ? stand.r : green ? stand.g : stand.b);
    hue = hue >= 6 ? hue - 6 : hue;
    return {low + span * __saturatef(fabsf(hue - 3) - 1),
            low + span * __saturatef(2 - fabsf(hue - 2)),
            low + span * __saturatef(2 - fabsf(hue - 4))};
}

// Applies the steps to N pixels.
template <int N>
__device__ __forceinline__ void develop(Colour (&c)[N], const Steps& steps) {
    const Step* step = steps.step;
#pragma unroll 1
    for (unsigned kinds = steps.kinds; kinds; kinds >>= 2, ++step) {
        const float4 four = *reinterpret_cast<const float4*>(step);
        const float scale = four.x;
        const Colour v{four.y, four.z, four.w};
        if ((kinds & 3) == TURN) {
#pragma unroll
            for (int i = 0; i < N; ++i) c[i] = rotate(c[i], v);
            continue;
        }
        float shift[N];
#pragma unroll
        for (int i = 0; i < N; ++i) shift[i] = v.r;
        if ((kinds & 3) == MIX) {
#pragma unroll
            for (int i = 0; i < N; ++i) shift[i] = v.r * c[i].r + v.g * c[i].g + v.b * c[i].b;
        }
#pragma unroll
        for (int i = 0; i < N; ++i) {
            c[i] = {__saturatef(c[i].r * scale + shift[i]), __saturatef(c[i].g * scale + shift[i]),
                    __saturatef(c[i].b * scale + shift[i])};
        }
    }
}

// The colour of a level from 2²³ + level: exact, then one rounding, as of the product alone.
__device__ __forceinline__ float level(unsigned biased) {
    return fmaf(__uint_as_float(biased), LEVEL, -BIAS_LEVEL);
}

__device__ __forceinline__ Colour colour(const unsigned char* pixel) {
    return {level(BIAS | __ldg(pixel)), level(BIAS | __ldg(pixel + 1)),
            level(BIAS | __ldg(pixel + 2))};
}

// The colours of four pixels that lie in three words.
__device__ __forceinline__ void colours(Colour (&c)[4], const unsigned (&word)[3]) {
    float v[12];
#pragma unroll
    for (int i = 0; i < 12; ++i) v[i] = level(__byte_perm(word[i / 4], BIAS, 0x7440 | i % 4));
#pragma unroll
    for (int i = 0; i < 4; ++i) c[i] = {v[3 * i], v[3 * i + 1], v[3 * i + 2]};
}
