// IIC's dense mutual-information loss and its gradient: see src/device/ops/iic.rs for what is computed.
//
// All (2t + 1)² matrices Q are sums of correlations of the coarse maps at L lags: for each class of pairs of rows and of columns
// (the first, those between, the last),
//   C[a,b] = Σ x1[n,p,a]·x2[n,p−δ,b]   (iic_lags)      Q_s = Σ K_sy·K_sx·C   (iic_mix, by columns, then rows),
// then the loss and the gradient of each Q (iic_mutual), which goes back the way it came:
//   dC = Σ K_sy·K_sx·dQ_s (iic_mix)    dx1[n,p,a] = Σ_δ Σ_b dC_δ[a,b]·x2[n,p−δ,b], dx2[n,q,a] = Σ_δ Σ_b dC_δ[a,b]·x1[n,q+δ,b] (iic_grad).
// dQ is symmetric, and so is dC.
//
// The maps are read from L2, and written once: 2·22 MB for 60 pairs of 32×32 maps of 45 classes, 10 µs. What counts are three
// passes of n·k²·Σ_δ pairs = 8.7e9 multiply-adds, 52 GFLOP: 0.8 ms at 67 TFLOP/s of f32. (The definition, at full resolution,
// has 100 times as many.) Tensor cores would be the next step: maps are probabilities, two bf16 each hold them to 16 bits.
#include "common.cuh"

enum Class { FIRST, INNER, LAST, CLASSES };

// Entries of P and of its marginals below this count as this, without a gradient.
constexpr double EPS = 2.220446049250313e-16;

// The pairs (p + i, q + i), i < count, of a class of a lag along an axis.
struct Pairs {
    int p, q, count;
};

__device__ __forceinline__ Pairs pairs_of(int len, int lag, int which) {
    const int p = lag > 0 ? lag : 0, q = lag < 0 ? -lag : 0, all = len - p - q;
    if (which == FIRST) return {p, q, all > 0 ? 1 : 0};
    if (which == LAST) return {p + all - 1, q + all - 1, all > 1 ? 1 : 0};
    return {p + 1, q + 1, all > 2 ? all - 2 : 0};
}

// The class of a pair that lies in the map.
__device__ __forceinline__ int class_of(int len, int p, int q) {
    if (p == 0 || q == 0) return FIRST;
    return p == len - 1 || q == len - 1 ? LAST : INNER;
}

// What pixel p gives row y of the upsampled map.
__device__ __forceinline__ double tent(int len, int up, int y, int p) {
    const double at = fmin(fmax((y + 0.5) / up - 0.5, 0.0), len - 1.0);
    return fmax(1.0 - fabs(at - p), 0.0);
}

// K (shifts, lags, classes) of an axis: Σ_y U[y + s, p]·U[y, q], of all shifts at once where `shifts` is 1. A thread a number.
KERNEL(iic_table, 64)(float* __restrict__ table, int len, int up, int t, int radius, int shifts) {
    const int i = blockIdx.x * 64 + threadIdx.x, lags = 2 * radius + 1;
    if (i >= shifts * lags * CLASSES) return;
    const int shift = i / (lags * CLASSES), j = i / CLASSES % lags;
    const Pairs pair = pairs_of(len, radius - j, i % CLASSES);
    const int side = len * up, from = shifts == 1 ? -t : shift - t, to = shifts == 1 ? t : shift - t;
    // Beyond these rows the tent of q is zero.
    const int first = up * (pair.q > 0 ? pair.q - 1 : 0), last = min(side, up * (pair.q + 2));
    double sum = 0.0;
    for (int s = from; s <= to && pair.count > 0; ++s) {
        for (int y = first; y < last; ++y) {
            if (y + s >= 0 && y + s < side) sum += tent(len, up, y + s, pair.p) * tent(len, up, y, pair.q);
        }
    }
    table[i] = static_cast<float>(sum);
}

// A tile of classes × classes, STEP pixels at once; BATCH pixels are looked up at once.
constexpr int TILE = 48, SIDE = 6, STEP = 16, BATCH = 64;

// Six numbers at an even place of shared memory.
__device__ __forceinline__ void six(float* x, const float* from) {
#pragma unroll
    for (int i = 0; i < SIDE; i += 2) {
        const float2 two = *reinterpret_cast<const float2*>(from + i);
        x[i] = two.x;
        x[i + 1] = two.y;
    }
}

// Correlations of a pair of lags, of one tile of (k, k). Block (x, y): lag of rows, of columns, tile; y < 8: a class with a
// border, in c (lags of rows, classes, lags of columns, classes, k, k); else the inner class of `each` pairs of images, in part
// (chunks, lags of rows, lags of columns, k, k).
KERNEL(iic_lags, 64)(float* __restrict__ c, float* __restrict__ part, const float* __restrict__ maps, int n, int h, int w, int k,
                     int ry, int rx, int each) {
    SHARED(float, as, STEP * TILE);
    SHARED(float, bs, STEP * TILE);
    SHARED(int, at, BATCH);
    const int t = threadIdx.x, tx = t % 8, ty = t / 8;
    const int tiles = (k + TILE - 1) / TILE, lag = blockIdx.x / (tiles * tiles), ly = 2 * ry + 1, lx = 2 * rx + 1;
    const int a0 = blockIdx.x / tiles % tiles * TILE, b0 = blockIdx.x % tiles * TILE;
    const int jy = lag / lx, jx = lag % lx, chunk = static_cast<int>(blockIdx.y) - 8;
    // The classes but the fifth, which is inner in both.
    const int which = chunk >= 0 ? 4 : blockIdx.y + (blockIdx.y >= 4 ? 1 : 0);
    const Pairs rows = pairs_of(h, ry - jy, which / CLASSES), columns = pairs_of(w, rx - jx, which % CLASSES);
    const int image = chunk >= 0 ? chunk * each : 0, end = chunk >= 0 ? min(n, image + each) : n;
    const int per = rows.count * columns.count, pixels = per * (end - image);
    const int apart = ((n * h + rows.q - rows.p) * w + columns.q - columns.p) * k;
    float acc[SIDE][SIDE] = {};
    for (int first = 0; first < pixels; first += BATCH) {
        const int pixel = first + t;
        int place = -1;
        if (pixel < pixels) {
            const int of = pixel / per, row = pixel % per / columns.count, column = pixel % per % columns.count;
            place = (((image + of) * h + rows.p + row) * w + columns.p + column) * k;
        }
        at[t] = place;
        for (int step = 0; step < BATCH && first + step < pixels; step += STEP) {
            __syncthreads();
#pragma unroll
            for (int i = t / 16; i < STEP; i += 4) {
                const int from = at[step + i];
#pragma unroll
                for (int j = t % 16; j < TILE; j += 16) {
                    as[i * TILE + j] = from >= 0 && a0 + j < k ? maps[from + a0 + j] : 0.0f;
                    bs[i * TILE + j] = from >= 0 && b0 + j < k ? maps[from + apart + b0 + j] : 0.0f;
                }
            }
            __syncthreads();
#pragma unroll 4
            for (int i = 0; i < STEP; ++i) {
                float a[SIDE], b[SIDE];
                six(a, as + i * TILE + ty * SIDE);
                six(b, bs + i * TILE + tx * SIDE);
#pragma unroll
                for (int u = 0; u < SIDE; ++u) {
#pragma unroll
                    for (int v = 0; v < SIDE; ++v) acc[u][v] += a[u] * b[v];
                }
            }
        }
        // The places of the next batch are written when all have read these.
        __syncthreads();
    }
    const int row = chunk >= 0 ? chunk * ly + jy : (jy * CLASSES + which / CLASSES);
    const int column = chunk >= 0 ? jx : jx * CLASSES + which % CLASSES, width = chunk >= 0 ? lx : lx * CLASSES;
    float* out = (chunk >= 0 ? part : c) + (static_cast<size_t>(row) * width + column) * k * k;
#pragma unroll
    for (int u = 0; u < SIDE; ++u) {
#pragma unroll
        for (int v = 0; v < SIDE; ++v) {
            const int a = a0 + ty * SIDE + u, b = b0 + tx * SIDE + v;
            if (a < k && b < k) out[a * k + b] = acc[u][v];
        }
    }
}

// The inner class of c = the sum of its chunks. Block (x, y): entries; lag of rows and of columns.
KERNEL(iic_add, 256)(float* __restrict__ c, const float* __restrict__ part, int chunks, int lags, int lx, int square) {
    const int e = blockIdx.x * 256 + threadIdx.x, jy = blockIdx.y / lx, jx = blockIdx.y % lx;
    if (e >= square) return;
    float sum = 0.0f;
    for (int i = 0; i < chunks; ++i) sum += part[(static_cast<size_t>(i) * lags + blockIdx.y) * square + e];
    const int matrix = (jy * CLASSES + INNER) * lx * CLASSES + jx * CLASSES + INNER;
    c[static_cast<size_t>(matrix) * square + e] = sum;
}

// Outputs of a thread of iic_mix.
constexpr int OUTS = 8;

// out (batch, outs, len) = Σ_i table[o·by_out + i·by_in]·in (batch, ins, len). Block (x, y, z): elements, outputs, batch.
KERNEL(iic_mix, 256)(float* __restrict__ out, const float* __restrict__ in, const float* __restrict__ table, int len, int outs,
                     int ins, int by_out, int by_in) {
    const int e = blockIdx.x * 256 + threadIdx.x, first = blockIdx.y * OUTS;
    if (e >= len) return;
    in += static_cast<size_t>(blockIdx.z) * ins * len + e;
    out += (static_cast<size_t>(blockIdx.z) * outs + first) * len + e;
    float acc[OUTS] = {};
    for (int i = 0; i < ins; ++i) {
        const float x = in[static_cast<size_t>(i) * len];
#pragma unroll
        for (int o = 0; o < OUTS; ++o) {
            if (first + o < outs) acc[o] += table[(first + o) * by_out + i * by_in] * x;
        }
    }
#pragma unroll
    for (int o = 0; o < OUTS; ++o) {
        if (first + o < outs) out[static_cast<size_t>(o) * len] = acc[o];
    }
}

__device__ __forceinline__ double warp_sum_double(double x) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

// joint (shifts, k, k) = rate · the gradient of Q, which it holds; losses (shifts) = what each adds to the loss, before its
// share. A block a shift, a warp a row; f64, because loss and gradient are what is left of logarithms that cancel.
//
// With P and its marginals clamped, G = −(log P + 1) + λ·(log p_a + log p_b), 0 where P was below EPS, plus λ·(Σ_b P)/p_a and
// the same of b; the gradient of Q is (G − ⟨G, P⟩)/ΣQ, without the mean where the normaliser is constant.
KERNEL(iic_mutual, 256)(float* joint, double* __restrict__ losses, int k, float lambda, float rate, int collapsed) {
    DYNAMIC_SHARED(double, room);
    double *marginal = room, *log_of = room + k, *slope_of = room + 2 * k, *loss_of = room + 3 * k, *mean_of = room + 4 * k;
    const int t = threadIdx.x, warp = t / 32, lane = t % 32;
    float* q = joint + static_cast<size_t>(blockIdx.x) * k * k;
    for (int a = warp; a < k; a += 8) {
        double sum = 0.0;
        for (int b = lane; b < k; b += 32) sum += static_cast<double>(q[a * k + b]) + q[b * k + a];
        sum = warp_sum_double(sum);
        if (lane == 0) marginal[a] = sum;
    }
    __syncthreads();
    double twice = 0.0;
    for (int a = 0; a < k; ++a) twice += marginal[a];
    __syncthreads();
    for (int a = t; a < k; a += 256) {
        marginal[a] /= twice;
        log_of[a] = lambda * log(fmax(marginal[a], EPS));
    }
    __syncthreads();
    for (int a = warp; a < k; a += 8) {
        double loss = 0.0, mean = 0.0, sum = 0.0;
        for (int b = lane; b < k; b += 32) {
            const double p = (static_cast<double>(q[a * k + b]) + q[b * k + a]) / twice, clamped = fmax(p, EPS);
            const double gain = log(clamped) - log_of[a] - log_of[b];
            loss -= clamped * gain;
            if (p >= EPS) mean -= p * (gain + 1.0);
            sum += clamped;
        }
        loss = warp_sum_double(loss);
        mean = warp_sum_double(mean);
        sum = warp_sum_double(sum);
        if (lane == 0) {
            slope_of[a] = marginal[a] < EPS ? 0.0 : lambda * sum / marginal[a];
            loss_of[a] = loss;
            mean_of[a] = mean + 2.0 * marginal[a] * slope_of[a];
        }
    }
    __syncthreads();
    double loss = 0.0, mean = 0.0;
    for (int a = 0; a < k; ++a) {
        loss += loss_of[a];
        mean += mean_of[a];
    }
    if (collapsed) mean = 0.0;
    if (t == 0) losses[blockIdx.x] = loss;
    const double scale = rate / (0.5 * twice);
    // Both entries of a pair belong to one thread.
    for (int e = t; e < k * k; e += 256) {
        const int a = e / k, b = e % k;
        if (b > a) continue;
        const double p = (static_cast<double>(q[a * k + b]) + q[b * k + a]) / twice;
        const double own = p < EPS ? 0.0 : -(log(p) - log_of[a] - log_of[b] + 1.0);
        const float gradient = static_cast<float>(scale * (own + slope_of[a] + slope_of[b] - mean));
        q[a * k + b] = gradient;
        q[b * k + a] = gradient;
    }
}

// loss (1) = share · Σ losses. One block.
KERNEL(iic_loss, 256)(float* __restrict__ loss, const double* __restrict__ losses, int shifts, float share) {
    SHARED(double, sums, 256);
    const int t = threadIdx.x;
    double sum = 0.0;
    for (int i = t; i < shifts; i += 256) sum += losses[i];
    sums[t] = sum;
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) sums[t] += sums[t + half];
    }
    if (t == 0) *loss = static_cast<float>(share * sums[0]);
}

// A tile of pixels, and how far apart classes lie of it.
constexpr int PIXELS = 64, PITCH = 68;

// dmaps (2n, h, w, k) from c, the gradient of the correlations. Block (x, y, z): tile of pixels; row; tile of classes and view.
// border 0: pixels are those of all images' row, and get what pairs of inner columns give them. Else: `border` columns of each
// row are taken one by one, pixels are those of all images, and what pairs with a border column give is added.
KERNEL(iic_grad, 128)(float* __restrict__ dmaps, const float* __restrict__ maps, const float* __restrict__ c, int n, int h, int w,
                      int k, int ry, int rx, int border) {
    SHARED(float, xs, TILE * PITCH);
    SHARED(float, cs, TILE * TILE);
    const int t = threadIdx.x, tx = t % 8, ty = t / 8, view = blockIdx.z % 2, a0 = blockIdx.z / 2 * TILE;
    const int row = border ? blockIdx.y / border : blockIdx.y, turn = border ? blockIdx.y % border : 0;
    const int fixed = turn <= rx ? turn : w - border + turn;
    const int lx = 2 * rx + 1, all = border ? n : n * w;
    const float* other = maps + (view == 0 ? static_cast<size_t>(n) * h * w * k : 0);
    // Of the pixels that this thread loads: the map's column (−1: none), and where column 0 of row 0 of its image lies.
    int column[8], base[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const int pixel = blockIdx.x * PIXELS + t / 16 + 8 * i, image = border ? pixel : pixel / w;
        column[i] = pixel < all ? (border ? fixed : pixel - image * w) : -1;
        base[i] = image * h * w * k;
    }
    float acc[4][SIDE] = {};
    for (int jy = 0; jy <= 2 * ry; ++jy) {
        const int from_row = view == 0 ? row - (ry - jy) : row + (ry - jy);
        if (from_row < 0 || from_row >= h) continue;
        const int line = jy * CLASSES + class_of(h, row, from_row);
        for (int jx = 0; jx < lx; ++jx) {
            const int lag = view == 0 ? rx - jx : jx - rx;
            int which = INNER;
            if (border) {
                if (fixed - lag < 0 || fixed - lag >= w) continue;
                which = class_of(w, fixed, fixed - lag);
                if (which == INNER) continue;
            }
            const float* matrix = c + (static_cast<size_t>(line) * lx * CLASSES + jx * CLASSES + which) * k * k;
            for (int b0 = 0; b0 < k; b0 += TILE) {
                __syncthreads();
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    const int from = column[i] - lag;
                    const bool met = border ? column[i] >= 0 : min(column[i], from) >= 1 && max(column[i], from) <= w - 2;
                    const float* x = other + base[i] + (from_row * w + from) * k + b0;
#pragma unroll
                    for (int j = t % 16; j < TILE; j += 16) {
                        xs[j * PITCH + t / 16 + 8 * i] = met && b0 + j < k ? x[j] : 0.0f;
                    }
                }
#pragma unroll
                for (int i = t / 16; i < TILE; i += 8) {
#pragma unroll
                    for (int j = t % 16; j < TILE; j += 16) {
                        cs[i * TILE + j] = b0 + i < k && a0 + j < k ? matrix[(b0 + i) * k + a0 + j] : 0.0f;
                    }
                }
                __syncthreads();
#pragma unroll 4
                for (int i = 0; i < TILE; ++i) {
                    float b[SIDE];
                    const float4 x = *reinterpret_cast<const float4*>(xs + i * PITCH + ty * 4);
                    six(b, cs + i * TILE + tx * SIDE);
#pragma unroll
                    for (int v = 0; v < SIDE; ++v) {
                        acc[0][v] += x.x * b[v];
                        acc[1][v] += x.y * b[v];
                        acc[2][v] += x.z * b[v];
                        acc[3][v] += x.w * b[v];
                    }
                }
            }
        }
    }
#pragma unroll
    for (int u = 0; u < 4; ++u) {
        const int pixel = blockIdx.x * PIXELS + ty * 4 + u;
        if (pixel >= all) continue;
        const int image = border ? pixel : pixel / w, at = border ? fixed : pixel - image * w;
        float* out = dmaps + ((static_cast<size_t>(view * n + image) * h + row) * w + at) * k;
#pragma unroll
        for (int v = 0; v < SIDE; ++v) {
            const int a = a0 + tx * SIDE + v;
            if (a < k) out[a] = border ? out[a] + acc[u][v] : acc[u][v];
        }
    }
}
