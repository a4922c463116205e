// Views: stored images as the network reads them, with colours, geometry and normalisation.
//
//   images[index] (sh, sw, 3) u8 → photometric steps → sums over columns, then over rows →
//   (x − MEAN)/STD → x (n, h, w, 4 or 8) act
//
// Blur and resampling are linear, so an output is one weighted sum along each axis: its triangle
// (as wide as the scale where the whole image shrinks, else two pixels wide) convolved with the
// Gaussian.
//
//   view_grey    only for images whose contrast changes: Σ grey at that point of the steps, as
//                PARTS partial sums of an image.
//   view_render  a block makes TILE × TILE outputs of an image. Its warps take the source rows
//                below the tile in turn: colours of a row are computed once into the warp's line,
//                weighted sums over columns go to shared memory, and after at most ROWS rows every
//                thread adds them to its four outputs. Nothing but x is written, and no scratch
//                holds an image. Windows larger than the line and the rows are walked through in
//                pieces, so that any scale and any σ works; more than MOST taps along an axis are
//                not kept but weighed anew at each use, which is slow: recipes blur with σ ≤ 2, 16
//                taps.
//
// Bytes: the window's u8 once (overlaps of tiles, 2·radius + 2 pixels wide, come from L2), those of
// the whole image once more where contrast changes; 8·h·w written at 16 bits. For 128 images of
// 640² cut to 0.75·640 on average and 320²: 88 + 157 + 105 MB, 90 µs at 4 TB/s. By a count, not a
// measurement, arithmetic (some 100 instructions a source pixel with all steps) and shared memory
// (4 loads a tap) cost three to four times as much: they are what bounds this.
#include "draws.cuh"
#include "view.cuh"

// Partial sums of grey of an image: blocks of view_grey.
constexpr int PARTS = 32;
// Source rows whose sums over columns are in shared memory.
constexpr int ROWS = 48;
// Source columns of a warp's line.
constexpr int COLS = 96;
// Weights that are kept for an output along an axis.
constexpr int MOST = 32;
// The longest side of a stored image: two tables of a blur's weights lie in dynamic shared memory.
constexpr int LONGEST = 4096;

static_assert(PARTS == WARP, "a warp adds up the partial sums of an image");
static_assert(COLS % WARP == 0, "a warp stages whole lines");
static_assert((ROWS * 3 * TILE + WARPS * 3 * COLS + 2 * MOST * TILE + 2 * (LONGEST + 1)) * 4 +
                      2 * TILE * 32 <=
                  MOST_SHARED,
              "sums, lines, weights, the blur's tables and reaches fit");

// The colour of a level is a product, not a quotient, as on the CPU engine: the same bits.
constexpr float LEVEL = 1.0f / 255.0f;

// Each channel as v + (x − v)·s, clamped: contrast (v is the mean grey of the image) and saturation
// (v is the grey of the pixel).
__device__ __forceinline__ Colour away(const Colour& c, float v, float s) {
    return {__saturatef(v + (c.r - v) * s), __saturatef(v + (c.g - v) * s),
            __saturatef(v + (c.b - v) * s)};
}

// Turns the hue by `turn` sextants at constant HSV value and saturation: with hue h in sextants, a
// channel is V − VS·clamp(min(k, 4 − k)), k = (h + 5, 3, 1) mod 6 for red, green, blue.
__device__ __forceinline__ Colour rotate(const Colour& c, float turn) {
    const float top = fmaxf(c.r, fmaxf(c.g, c.b));
    const float span = top - fminf(c.r, fminf(c.g, c.b));
    const float scale = 1.0f / (span > 0 ? span : 1.0f);
    float hue = top == c.r   ? (c.g - c.b) * scale
                : top == c.g ? 2 + (c.b - c.r) * scale
                             : 4 + (c.r - c.g) * scale;
    // −1..5 and a turn of −3..3 are one wrap away from 0..6.
    hue += turn;
    hue = hue < 0 ? hue + 6 : hue;
    hue = hue >= 6 ? hue - 6 : hue;
    const auto channel = [=](float n) {
        float k = hue + n;
        k = k >= 6 ? k - 6 : k;
        return top - span * __saturatef(fminf(k, 4 - k));
    };
    return {channel(5), channel(3), channel(1)};
}

// Applies the photometric steps of a draw to N pixels; only those before its contrast if `mean` is
// null. Steps that would change nothing are left out.
template <int N>
__device__ __forceinline__ void develop(Colour (&c)[N], const Photo& photo, const float* mean) {
#pragma unroll 1
    for (int field = 0; field < 8; field += 2) {
        switch (photo.order >> field & 3) {
            case 0:
                if (photo.brightness == 1) break;
#pragma unroll
                for (int i = 0; i < N; ++i) {
                    c[i] = {__saturatef(c[i].r * photo.brightness),
                            __saturatef(c[i].g * photo.brightness),
                            __saturatef(c[i].b * photo.brightness)};
                }
                break;
            case 1:
                if (!mean) return;
                if (photo.contrast == 1) break;
#pragma unroll
                for (int i = 0; i < N; ++i) c[i] = away(c[i], *mean, photo.contrast);
                break;
            case 2:
                if (photo.saturation == 1) break;
#pragma unroll
                for (int i = 0; i < N; ++i) c[i] = away(c[i], grey(c[i]), photo.saturation);
                break;
            default:
                if (photo.hue == 0) break;
#pragma unroll
                for (int i = 0; i < N; ++i) c[i] = rotate(c[i], 6 * photo.hue);
        }
    }
    if (photo.grey) {
#pragma unroll
        for (int i = 0; i < N; ++i) c[i].r = c[i].g = c[i].b = grey(c[i]);
    }
}

__device__ __forceinline__ Colour colour(const unsigned char* pixel) {
    return {pixel[0] * LEVEL, pixel[1] * LEVEL, pixel[2] * LEVEL};
}

// partial (n, PARTS) = Σ grey before the contrast over a share of the image's pixels; untouched
// where contrast changes nothing. Blocks (PARTS, n).
KERNEL(view_grey, THREADS)(float* __restrict__ partial, const unsigned char* __restrict__ images,
                           const unsigned* __restrict__ index, const Photo* __restrict__ photo,
                           int sh, int sw) {
    SHARED(float, sums, WARPS);
    const Photo draw = photo[blockIdx.y];
    if (draw.contrast == 1) return;
    const int pixels = sh * sw;
    const unsigned char* const image = images + size_t(index[blockIdx.y]) * pixels * 3;
    const bool aligned = pixels % 4 == 0;
    float sum = 0;
    for (int quad = blockIdx.x * THREADS + threadIdx.x; quad < pixels / 4;
         quad += PARTS * THREADS) {
        const unsigned char* const from = image + size_t(quad) * 12;
        unsigned char bytes[12];
        if (aligned) {
#pragma unroll
            for (int k = 0; k < 3; ++k) {
                const unsigned word = reinterpret_cast<const unsigned*>(from)[k];
#pragma unroll
                for (int b = 0; b < 4; ++b) bytes[4 * k + b] = word >> 8 * b & 255;
            }
        } else {
#pragma unroll
            for (int k = 0; k < 12; ++k) bytes[k] = from[k];
        }
        Colour c[4] = {colour(bytes), colour(bytes + 3), colour(bytes + 6), colour(bytes + 9)};
        develop(c, draw, nullptr);
        sum += (grey(c[0]) + grey(c[1])) + (grey(c[2]) + grey(c[3]));
    }
    // The last pixels of an image whose pixels are no multiple of 4.
    if (blockIdx.x == 0 && threadIdx.x < pixels % 4) {
        Colour c[1] = {colour(image + size_t(pixels / 4 * 4 + threadIdx.x) * 3)};
        develop(c, draw, nullptr);
        sum += grey(c[0]);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        float total = 0;
        for (int i = 0; i < WARPS; ++i) total += sums[i];
        partial[blockIdx.y * PARTS + blockIdx.x] = total;
    }
}

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
    for (int i = begin; i < end; ++i) {
        sum +=
            fmaxf(1 - fabsf(i - reach.peak) * reach.slope, 0.0f) * share[abs(reach.first + i - at)];
    }
    return sum * reach.scale;
}

// Writes N colours of a row, 32 pixels apart, to a warp's line (3, COLS); columns from `end` on
// repeat the last.
template <int N>
__device__ __forceinline__ void stage(float* line, const unsigned char* row, int end,
                                      const Photo& draw, float mean) {
    const int lane = threadIdx.x % 32;
    Colour c[N];
#pragma unroll
    for (int i = 0; i < N; ++i) c[i] = colour(row + 3 * min(lane + 32 * i, end - 1));
    develop(c, draw, &mean);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        float* const to = line + lane + 32 * i;
        to[0] = c[i].r;
        to[COLS] = c[i].g;
        to[2 * COLS] = c[i].b;
    }
}

// x (n, h, w, channels) = views of images[index] (n), channels from 3 on zero. Without `photo` (n)
// colours stay, without `crops` (n) the whole image is resized; `partial` from view_grey is read
// where contrast changes. Blocks (⌈w/TILE⌉, ⌈h/TILE⌉, n); dynamic shared memory: 2·(max(sh, sw) +
// 1) floats.
KERNEL(view_render,
       THREADS)(act* __restrict__ x, const unsigned char* __restrict__ images,
                const unsigned* __restrict__ index, Maybe<const Photo> __restrict__ photo,
                Maybe<const Crop> __restrict__ crops, const float* __restrict__ partial, int sh,
                int sw, int h, int w, int channels) {
    SHARED(float, sums, ROWS * 3 * TILE);
    SHARED(float, lines, WARPS * 3 * COLS);
    SHARED(float, weights, 2 * MOST * TILE);
    SHARED(Reach, reaches, 2 * TILE);
    DYNAMIC_SHARED(float, bell);
    const int image = blockIdx.z, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned char* const from = images + size_t(index[image]) * sh * sw * 3;
    const Photo draw = photo ? photo[image] : Photo{1, 1, 1, 0, 0, 0, 0xe4};
    const float mean =
        draw.contrast == 1 ? 0 : warp_sum(partial[image * PARTS + lane]) / (float(sh) * float(sw));

    // The blur's Gaussian and its tails.
    const int longest = max(sh, sw);
    const int radius = draw.sigma > 0 ? int(fminf(ceilf(3 * draw.sigma), float(longest))) : 0;
    float* const tail = bell + longest + 1;
    const Blur blur{bell, tail, radius};
    for (int i = threadIdx.x; i <= radius; i += THREADS) {
        const float d = i / draw.sigma;
        bell[i] = i == 0 ? 1 : expf(-0.5f * d * d);
    }
    __syncthreads();
    for (int i = threadIdx.x; i <= radius; i += THREADS) {
        float sum = 0;
        for (int j = radius; j >= i; --j) sum += bell[j];
        tail[i] = sum;
    }
    __syncthreads();

    // Reaches of the tile's columns, then of its rows, and the weights of both.
    Axis cols{sw, w, 0, sw, true, false}, rows{sh, h, 0, sh, true, false};
    if (crops) {
        const Crop crop = crops[image];
        const int side = static_cast<int>(crop.side);
        cols = {sw, w, static_cast<int>(crop.left), side, false, crop.flip != 0};
        rows = {sh, h, static_cast<int>(crop.top), side, false, false};
    }
    if (warp == 0) reaches[lane] = reach_of(cols, min(int(blockIdx.x) * TILE + lane, w - 1), blur);
    if (warp == 1)
        reaches[TILE + lane] = reach_of(rows, min(int(blockIdx.y) * TILE + lane, h - 1), blur);
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * MOST * TILE; i += THREADS) {
        const int axis = i / (MOST * TILE), tap = i / TILE % MOST;
        const Reach reach = reaches[axis * TILE + i % TILE];
        if (reach.from + tap < reach.to)
            weights[i] = weight(reach, reach.from + tap, axis ? sh : sw, blur);
    }
    const int left = min(reaches[0].from, reaches[TILE - 1].from),
              right = max(reaches[0].to, reaches[TILE - 1].to);
    const int top = reaches[TILE].from, bottom = reaches[2 * TILE - 1].to;
    const Reach col = reaches[lane];
    const bool kept = col.to - col.from <= MOST;
    float* const line = lines + warp * 3 * COLS;
    float out[TILE / WARPS][3] = {};
    __syncthreads();

    for (int y0 = top; y0 < bottom; y0 += ROWS) {
        // Sums over columns: a warp has a source row, a lane a column of outputs.
        const int y1 = min(y0 + ROWS, bottom);
        for (int y = y0 + warp; y < y1; y += WARPS) {
            float r = 0, g = 0, b = 0;
            for (int x0 = left; x0 < right; x0 += COLS) {
                const int x1 = min(x0 + COLS, right);
                const unsigned char* const row = from + (size_t(y) * sw + x0) * 3;
                int at = 0;
                for (; x1 - x0 - at > 32; at += 64)
                    stage<2>(line + at, row + 3 * at, x1 - x0 - at, draw, mean);
                if (at < x1 - x0) stage<1>(line + at, row + 3 * at, x1 - x0 - at, draw, mean);
                __syncwarp();
                const int end = min(col.to, x1);
                for (int at = max(col.from, x0); at < end; ++at) {
                    const float share =
                        kept ? weights[(at - col.from) * TILE + lane] : weight(col, at, sw, blur);
                    r += share * line[at - x0];
                    g += share * line[COLS + at - x0];
                    b += share * line[2 * COLS + at - x0];
                }
                __syncwarp();
            }
            float* const to = sums + (y - y0) * 3 * TILE + lane;
            to[0] = r;
            to[TILE] = g;
            to[2 * TILE] = b;
        }
        // Sums over rows: a warp has four rows of outputs.
        __syncthreads();
#pragma unroll
        for (int k = 0; k < TILE / WARPS; ++k) {
            const int o = warp + k * WARPS;
            const Reach reach = reaches[TILE + o];
            const bool kept = reach.to - reach.from <= MOST;
            const int end = min(reach.to, y1);
            for (int y = max(reach.from, y0); y < end; ++y) {
                const float share =
                    kept ? weights[(MOST + y - reach.from) * TILE + o] : weight(reach, y, sh, blur);
                const float* const sum = sums + (y - y0) * 3 * TILE + lane;
#pragma unroll
                for (int c = 0; c < 3; ++c) out[k][c] += share * sum[c * TILE];
            }
        }
        __syncthreads();
    }

    // Normalise and write.
    const int ox = blockIdx.x * TILE + lane;
#pragma unroll
    for (int k = 0; k < TILE / WARPS; ++k) {
        const int oy = blockIdx.y * TILE + warp + k * WARPS;
        if (ox < w && oy < h) {
            F4 pixel{};
#pragma unroll
            for (int c = 0; c < 3; ++c)
                pixel.v[c] = (out[k][c] - mean_of(c)) * (1.0f / deviation_of(c));
            act* const to = x + ((size_t(image) * h + oy) * w + ox) * channels;
            store4(to, pixel);
            if (channels == 8) store4(to + 4, F4{});
        }
    }
}
