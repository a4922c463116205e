// Weighted cross-entropy of the head's scores against one to four targets, and its gradient down to
// F.
//
//   ℓ = log Σ exp(s) − s[y];  losses[i] = Σ w[y]·ℓ / Σ_view w[y]
//   dS = scale·w[y]/Σ w·(softmax(s) − onehot(y));  dF̂ = dS·W;  dF = (dF̂ − F̂·(F̂·dF̂))/‖F‖
//
// head_loss goes from laterals to dF in one pass: 1.33·n·h·w·128·sizeof(act) in,
// n·h·w·128·sizeof(act) out, for 256×80×80 in bf16 and a direct merge 0.98 GB, 0.23 ms at 4.3 TB/s.
// Of its 54 GFLOP (two classifiers of 32 classes, forward and backward) tensor cores take three
// bf16 products each for scores and two for gradients: 320 mma a warp's 16 pixels, 0.23 ms, and
// those of features besides. A warp has about 1,800 instructions of its own, and 1,100 to 1,500 for
// features: 0.3 ms of issue, about as long as tensor cores and memory take.
#include "head_fill.cuh"
#include "head_gradient.cuh"

constexpr int MOST_TARGETS = 4;
// Classifiers of up to CHUNK classes that head_loss keeps in shared memory.
constexpr int SLOTS = 2;
// The dynamic shared memory of head_loss: a tile and the classifiers.
constexpr int LOSS_BYTES = TILE_BYTES + SLOTS * CHUNK_WORDS * sizeof(unsigned);

static_assert(MOST_TARGETS == 4 && MINE == WARP / 2, "half a warp reads the labels of two targets");
static_assert(LOSS_BYTES + MOST_TARGETS * TILE * 16 + 1024 <= MOST_SHARED, "a block's memory");

// What an image's scores are compared with: a classifier w (k, D), b (k), class weights (k) and
// labels (images, h, w).
struct Target {
    const float *w, *b, *weights;
    const unsigned short* labels;
    int k;
    float scale;
};

// What a loss reads beside the laterals, passed by value: the first `count` targets. The labels of
// image i are row index[i] of each target, `view` images are a view.
struct Targets {
    Target at[MOST_TARGETS];
    const unsigned* index;
    int count, images, view, pixels;
};

// partial (n, targets) = Σ w[y] over an image. Grid (n, targets).
KERNEL(head_weigh, THREADS)(float* __restrict__ partial, const Targets targets) {
    SHARED(float, sums, THREADS);
    const Target& target = targets.at[blockIdx.y];
    const unsigned row = targets.index[blockIdx.x];
    const unsigned short* labels = target.labels;
    const float* weights = target.weights;
    const int k = target.k, pixels = targets.pixels, t = threadIdx.x;
    float sum = 0.0f;
    if (row < static_cast<unsigned>(targets.images)) {
        labels += static_cast<size_t>(row) * pixels;
        for (int i = t; i < pixels; i += THREADS) sum += labels[i] < k ? weights[labels[i]] : NAN;
    } else {
        sum = NAN;
    }
    sums[t] = sum;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) sums[t] += sums[t + half];
    }
    if (t == 0) partial[targets.count * blockIdx.x + blockIdx.y] = sums[0];
}

// shares (views, targets) = 1/Σ of partial (n, targets) over a view, 0 where the sum is 0. One
// block; its threads take the shares in turn.
KERNEL(head_shares, WARP)(float* __restrict__ shares, const float* __restrict__ partial, int n,
                          int view, int targets) {
    for (int i = threadIdx.x; i < targets * (n / view); i += WARP) {
        double sum = 0.0;
        for (int image = 0; image < view; ++image)
            sum += partial[targets * (i / targets * view + image) + i % targets];
        shares[i] = sum == 0.0 ? 0.0f : static_cast<float>(1.0 / sum);
    }
}

// 2ˣ within 2⁻²² of itself, 0 where that is subnormal: one instruction.
__device__ __forceinline__ float power_of_two(float x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

constexpr float LOG2_E = 1.44269504f;

// exp(s − top), where `base` is top·log₂ e.
__device__ __forceinline__ float exp_below(float s, float base) {
    return power_of_two(fmaf(s, LOG2_E, -base));
}

// What a pixel is compared with: the label of a target, the weight of that class (NaN where there
// is none), and the slope of the loss over ‖F‖.
struct alignas(16) Answer {
    int y;
    float weight, slope;
};

// The label of a pixel that has none, and that of a pixel behind the last.
constexpr int UNKNOWN = 1 << 16, NOWHERE = 1 << 17;

// Lane l of a warp reads for pixel l % 16 of it, and for every second target from l / 16 on.
__device__ __forceinline__ int my_target(int i) { return 2 * i + threadIdx.x % WARP / MINE; }

// NOTE: of two targets at fixed places, since an index of a lane's own would copy the parameters
// into local memory.
template <class Of>
__device__ __forceinline__ auto of_mine(const Targets& targets, int i, const Of& of) {
    const auto even = of(targets.at[2 * i]), odd = of(targets.at[2 * i + 1]);
    return my_target(0) == 0 ? even : odd;
}

// The label for my_target(i) of a lane's pixel, `pixel` of the image.
__device__ __forceinline__ int load_label(const Targets& targets, int i, int image, int pixel) {
    if (my_target(i) >= targets.count || pixel >= targets.pixels) return NOWHERE;
    const unsigned short* labels = of_mine(targets, i, [](const Target& t) { return t.labels; });
    const unsigned row = targets.index[image];
    return row < static_cast<unsigned>(targets.images)
               ? labels[static_cast<size_t>(row) * targets.pixels + pixel]
               : UNKNOWN;
}

// answers (MOST_TARGETS, TILE) of that label and pixel, which is `at` of the tile; shares (targets)
// are those of its view, and inverse (TILE) has 1/‖F‖.
__device__ __forceinline__ void store_answer(Answer* answers, int y, const Targets& targets, int i,
                                             const float* shares, const float* inverse, int at) {
    const int c = my_target(i);
    if (c >= targets.count) return;
    const float* weights = of_mine(targets, i, [](const Target& t) { return t.weights; });
    const float scale = of_mine(targets, i, [](const Target& t) { return t.scale; });
    const int k = of_mine(targets, i, [](const Target& t) { return t.k; });
    const float weight = y == NOWHERE ? 0.0f : y < k ? weights[y] : NAN;
    answers[c * TILE + at] = {y, weight, weight * (scale * shares[c]) * inverse[at]};
}

// gradient += that of F̂ over ‖F‖, and losses (MOST_TARGETS) = Σ w[y]·ℓ over a warp's pixels, for N
// targets from target c on: one of any k, or several of one chunk each. Unless the classes are
// `resident`, all warps of a block must come.
template <int N>
__device__ __forceinline__ void add_targets(float (&gradient)[OCTETS][4], float* losses,
                                            const float* tile, unsigned* chunks, float* biases,
                                            const Answer* answers, const Targets& targets, int c,
                                            bool resident) {
    const int lane = threadIdx.x % WARP, k = N == 1 ? targets.at[c].k : CHUNK;
    const auto answer = [&](int n, int p) { return answers[(c + n) * TILE + my_pixel(p)]; };
    float s[N][4][4];
    const auto score = [&](int class0) {
        if (!resident) {
            __syncthreads();
#pragma unroll
            for (int n = 0; n < N; ++n) {
                const Target& target = targets.at[c + n];
                load_chunk(chunks + n * CHUNK_WORDS, biases + n * CHUNK, target.w, target.b,
                           target.k, class0);
            }
            __syncthreads();
        }
        scores(s, tile, chunks, biases);
    };

    // Forward, log Σ exp over the chunks: top is the largest score so far of a pixel, sum that of
    // exp(s − top) of the lane. NOTE: top begins finite, since exp(−∞ − −∞) of a chunk that has
    // only padding would be NaN.
    float top[N][2], sum[N][2], at_label[N][2];
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int p = 0; p < 2; ++p) {
            top[n][p] = -1e30f;
            sum[n][p] = at_label[n][p] = 0.0f;
        }
    }
#pragma unroll 1
    for (int class0 = 0; class0 < k; class0 += CHUNK) {
        score(class0);
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
            for (int p = 0; p < 2; ++p) {
                // Counted from the lane's first class.
                const int y = answer(n, p).y - class0 - my_class(0, 0);
                float most = top[n][p];
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    most = fmaxf(most, fmaxf(s[n][j][2 * p], s[n][j][2 * p + 1]));
                most = max_of_quad(most);
                const float base = most * LOG2_E;
                sum[n][p] *= exp_below(top[n][p], base);
                top[n][p] = most;
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    float& x = s[n][j / 2][2 * p + j % 2];
                    if (y == my_class(j / 2, j % 2) - my_class(0, 0)) at_label[n][p] = x;
                    const float share = exp_below(x, base);
                    sum[n][p] += share;
                    // Those of a single chunk are kept.
                    if (k <= CHUNK) x = share;
                }
            }
        }
    }
    // The loss of a pixel is log Σ exp(s − top), which one of its lanes adds for each target, and
    // top − s[y], which the lane of that class adds. From here on `sum` is the slope over the sum.
    float mine = 1.0f;
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int p = 0; p < 2; ++p) {
            sum[n][p] = sum_of_quad(sum[n][p]);
            if (lane % 4 == 2 * n + p) mine = sum[n][p];
        }
    }
    mine = logf(mine);
#pragma unroll
    for (int n = 0; n < N; ++n) {
        float loss = 0.0f;
#pragma unroll
        for (int p = 0; p < 2; ++p) {
            const Answer a = answer(n, p);
            if (a.y / 2 % 4 == lane % 4) loss += a.weight * (top[n][p] - at_label[n][p]);
            if (lane % 4 == 2 * n + p) loss += a.weight * mine;
            sum[n][p] = a.slope * reciprocal(sum[n][p]);
        }
        loss = warp_sum(loss);
        if (lane == 0) losses[c + n] = loss;
    }

    // Backward, chunk by chunk: slopes of the scores, times rows of w.
#pragma unroll 1
    for (int class0 = 0; class0 < k; class0 += CHUNK) {
        if (k > CHUNK) score(class0);
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
            for (int p = 0; p < 2; ++p) {
                const Answer a = answer(n, p);
                const int y = a.y - class0 - my_class(0, 0);
                const float base = top[n][p] * LOG2_E;
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    float& x = s[n][j / 2][2 * p + j % 2];
                    x = sum[n][p] * (k > CHUNK ? exp_below(x, base) : x);
                    if (y == my_class(j / 2, j % 2) - my_class(0, 0)) x -= a.slope;
                }
            }
            add_products(gradient, s[n], chunks + n * CHUNK_WORDS, N == 1 ? k - class0 : CHUNK);
        }
    }
}

// What head_loss and head_loss_any do, TWO: of two targets of a chunk each. A warp fills the rows
// that it reads, and where all classifiers stay in shared memory, warps go their own ways.
template <bool TWO>
__device__ __forceinline__ void add_losses(float* tile, float* partial, act* dp2, act* dwarped,
                                           const float* shares, const Laterals& laterals,
                                           const Targets& targets, int n) {
    SHARED(float, biases, SLOTS * CHUNK);
    SHARED(float, inverse, TILE);
    SHARED(Answer, answers, MOST_TARGETS * TILE);
    SHARED(float, all_losses, MOST_TARGETS * WARPS);
    unsigned* const chunks = reinterpret_cast<unsigned*>(tile + TILE * ROW);
    const int tiles = across(laterals.h) * across(laterals.w), count = TWO ? 2 : targets.count;
    const Share share = my_share(n * tiles);
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int mine = warp * MINE + lane % MINE;
    float* const losses = all_losses + MOST_TARGETS * warp;
    const bool resident = TWO || (count == 1 && targets.at[0].k <= CHUNK);
    if (resident) {
#pragma unroll 1
        for (int c = 0; c < count; ++c) {
            const Target& target = targets.at[c];
            load_chunk(chunks + c * CHUNK_WORDS, biases + c * CHUNK, target.w, target.b, target.k,
                       0);
        }
        __syncthreads();
    }
#pragma unroll 1
    for (int at = share.begin; at < share.end; ++at) {
        const int image = at / tiles;
        const Spot spot = spot_of(at - image * tiles, laterals.h, laterals.w);
        const int pixel = spot.has(mine) ? spot.pixel(mine) : targets.pixels;
        // The label is on its way while the warp fills its rows.
        const int label = load_label(targets, 0, image, pixel);
        __syncwarp();
        fill(tile, inverse, maps_of(image, laterals), spot);
        __syncwarp();
        const float* const own_shares = shares + image / targets.view * count;
        store_answer(answers, label, targets, 0, own_shares, inverse, mine);
        if (count > 2) {
            const int other = load_label(targets, 1, image, pixel);
            store_answer(answers, other, targets, 1, own_shares, inverse, mine);
        }
        __syncwarp();
        float gradient[OCTETS][4];
        clear(gradient);
        if constexpr (TWO) {
            add_targets<2>(gradient, losses, tile, chunks, biases, answers, targets, 0, true);
        } else {
#pragma unroll 1
            for (int c = 0; c < count; ++c) {
                add_targets<1>(gradient, losses, tile, chunks, biases, answers, targets, c,
                               resident);
            }
        }
        __syncwarp();
        if (lane < count)
            partial[(static_cast<size_t>(at) * WARPS + warp) * count + lane] = losses[lane];
        store_gradient(dp2, dwarped, gradient, tile, inverse, laterals, image, spot);
    }
}

// partial (n·tiles, WARPS, targets) = Σ w[y]·ℓ over a warp's pixels; the gradient of F goes to dp2
// or dwarped (n, h, w, D). There are two targets of up to CHUNK classes. Blocks take tiles in turn;
// dynamic shared memory: LOSS_BYTES.
KERNEL(head_loss, THREADS, BLOCKS)(float* __restrict__ partial, act* __restrict__ dp2,
                                   act* __restrict__ dwarped, const float* __restrict__ shares,
                                   const Laterals laterals, const Targets targets, int n) {
    DYNAMIC_SHARED(float, tile);
    add_losses<true>(tile, partial, dp2, dwarped, shares, laterals, targets, n);
}

// As head_loss, of any targets.
KERNEL(head_loss_any, THREADS, 2)(float* __restrict__ partial, act* __restrict__ dp2,
                                  act* __restrict__ dwarped, const float* __restrict__ shares,
                                  const Laterals laterals, const Targets targets, int n) {
    DYNAMIC_SHARED(float, tile);
    add_losses<false>(tile, partial, dp2, dwarped, shares, laterals, targets, n);
}

// losses (n, targets) = shares·Σ partial (n, parts, targets). A warp has an image.
KERNEL(head_losses, THREADS)(float* __restrict__ losses, const float* __restrict__ partial,
                             const float* __restrict__ shares, int n, int parts, int view,
                             int targets) {
    const int image = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (image >= n) return;
    partial += targets * static_cast<size_t>(image) * parts;
#pragma unroll 1
    for (int c = 0; c < targets; ++c) {
        float sum = 0.0f;
        for (int part = lane; part < parts; part += WARP) sum += partial[targets * part + c];
        sum = warp_sum(sum);
        if (lane == 0) losses[targets * image + c] = sum * shares[image / view * targets + c];
    }
}
