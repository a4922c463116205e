// From the pyramid's lateral maps to features, labels and sums by cluster.
//
//   F = p2 + up(p3 + up(p4 + up(p5)))     the cascade, or
//   F = p2 + up(p3) + up(p4) + up(p5)     the direct merge; `up` is bilinear
//   F̂ = warp(F)/max(‖warp(F)‖₂, 1e-12),  scores = F̂·wᵀ + b
//
// p2 is (n, h, w, 128), p3 … p5 have half the size each, rounded up. Bytes of an op: the laterals
// once, 1.33·n·h·w·128·sizeof(act) (taps of coarse maps and of the warp are read again from L1 and
// L2), the cascade's o3 as f32 out and in, 0.25·n·h·w·128·4 each, and the result: 512 bytes a pixel
// for features, 2 for labels. At 256×80×80 in bf16 that is 0.98 GB with o3, 0.23 ms at 4.3 TB/s.
// Scores and sums are on tensor cores; what binds is the filling of tiles (head_fill.cuh).
#include "head_clusters.cuh"
#include "head_fill.cuh"

// o3 (n, h3, w3, D) = p3 + up(p4 + up(p5)). A warp a pixel; grid (⌈pixels/WARPS⌉, n).
KERNEL(head_cascade, THREADS)(float* __restrict__ o3, const Laterals laterals) {
    const int h3 = (laterals.h + 1) / 2, w3 = (laterals.w + 1) / 2, h4 = (h3 + 1) / 2,
              w4 = (w3 + 1) / 2;
    const int h5 = (h4 + 1) / 2, w5 = (w4 + 1) / 2;
    const int pixel = blockIdx.x * WARPS + threadIdx.x / 32;
    if (pixel >= h3 * w3) return;
    const int y = pixel / w3, x = pixel - y * w3, lane = 4 * (threadIdx.x % 32);
    const size_t image = blockIdx.y;
    const act* p4 = laterals.p[2] + image * h4 * w4 * D + lane;
    const act* p5 = laterals.p[3] + image * h5 * w5 * D + lane;
    const auto o4 = [&](int y, int x) {
        F4 f = load(p4 + (y * w4 + x) * D);
        add(f, sample(p5, w5, tap(y, h5, ratio(h5, h4)), tap(x, w5, ratio(w5, w4))));
        return f;
    };
    const Tap v = tap(y, h4, ratio(h4, h3)), u = tap(x, w4, ratio(w4, w3));
    const F4 above = lerp(o4(v.lo, u.lo), o4(v.lo, u.hi), u.t);
    const F4 below = lerp(o4(v.hi, u.lo), o4(v.hi, u.hi), u.t);
    const size_t at = (image * h3 * w3 + pixel) * D + lane;
    F4 f = load(laterals.p[1] + at);
    add(f, lerp(above, below, v.t));
    store(o3 + at, f);
}

// features (n, h, w, D) = F̂. Grid (tiles of an image, n).
KERNEL(head_features, THREADS)(float* __restrict__ features, const Laterals laterals) {
    const int image = blockIdx.y, lane = 4 * (threadIdx.x % 32);
    const Maps maps = maps_of(image, laterals);
    features += static_cast<size_t>(image) * laterals.h * laterals.w * D + lane;
    for_my_pixels(blockIdx.x * TILE, laterals.h, laterals.w, [&](int, int y, int x, bool exists) {
        if (!exists) return;
        F4 f = maps.feature(y, x);
        const float scale = inverse_norm(f, maps.unit);
#pragma unroll
        for (int i = 0; i < 4; ++i) f.v[i] *= scale;
        store(features + (y * laterals.w + x) * D, f);
    });
}

// labels (images, h, w): row index[i] = the best class of each pixel of image i; counts (k) +=
// pixels of each class. Grid (tiles of an image, n); dynamic shared memory: TILE_BYTES.
KERNEL(head_assign, THREADS)(unsigned short* __restrict__ labels, unsigned* __restrict__ counts,
                             const Laterals laterals, const unsigned* __restrict__ index,
                             const float* __restrict__ cw, const float* __restrict__ cb, int images,
                             int k) {
    DYNAMIC_SHARED(float, tile);
    SHARED(unsigned, chunk, CHUNK_WORDS);
    SHARED(float, bias, CHUNK);
    SHARED(unsigned short, places, TILE);
    SHARED(unsigned, histogram, CHUNK);
    const int first = blockIdx.x * TILE, t = threadIdx.x, pixels = laterals.h * laterals.w;
    const int rows = pixels - first < TILE ? pixels - first : TILE;
    if (k <= CHUNK) load_chunk(chunk, bias, cw, cb, k, 0);
    if (t < CHUNK) histogram[t] = 0;
    fill(tile, nullptr, maps_of(blockIdx.y, laterals), first);
    int place[2];
    float top[2];
    arg_max(place, top, tile, chunk, bias, cw, cb, k);
    // Of the four lanes of two pixels the first and the second speak for one each.
    if (t % 4 < 2) {
        const int pixel = my_pixel(t % 2), mine = t % 4 == 0 ? place[0] : place[1];
        places[pixel] = static_cast<unsigned short>(mine);
        if (k <= CHUNK && pixel < rows) atomicAdd(histogram + mine, 1u);
    }
    __syncthreads();
    const unsigned row = index[blockIdx.y];
    // NOTE: an index outside of the label store is the caller's mistake; it must not become a wild
    // write.
    if (row >= static_cast<unsigned>(images)) return;
    if (t < rows) labels[static_cast<size_t>(row) * pixels + first + t] = places[t];
    if (k <= CHUNK) {
        count(counts, histogram, k);
    } else {
        count(counts, places, rows);
    }
}

// partial (parts, k, D), partial_score (parts) = sums of F̂ by cluster and of the best score over a
// block's tiles; counts (k) += pixels of each cluster. `parts` blocks; tile i of all is tile i %
// tiles of image i / tiles. Dynamic shared memory: TILE_BYTES, and k·D floats where `near`.
KERNEL(head_accumulate, THREADS)(float* __restrict__ partial, double* __restrict__ partial_score,
                                 unsigned* __restrict__ counts, const Laterals laterals,
                                 const float* __restrict__ cw, const float* __restrict__ cb, int n,
                                 int k, bool near) {
    DYNAMIC_SHARED(float, tile);
    const int pixels = laterals.h * laterals.w, tiles = (pixels + TILE - 1) / TILE;
    Clusters clusters;
    clusters.begin(tile, partial + static_cast<size_t>(blockIdx.x) * k * D, counts, cw, cb, k,
                   near);
    for (int i = blockIdx.x; i < n * tiles; i += gridDim.x) {
        const int image = i / tiles, first = (i - image * tiles) * TILE;
        const int rows = pixels - first < TILE ? pixels - first : TILE;
        fill(tile, nullptr, maps_of(image, laterals), first);
        clusters.take(tile, rows);
    }
    clusters.end(partial_score + blockIdx.x);
}

// sums (len) += Σ partial (parts, len), score (1) += Σ partial_score (parts) unless null.
// Grid (⌈len/SUMMED⌉).
KERNEL(head_sums, THREADS)(float* __restrict__ sums, Maybe<float> __restrict__ score,
                           const float* __restrict__ partial,
                           Maybe<const double> __restrict__ partial_score, int parts, size_t len) {
    SHARED(float, columns, THREADS);
    SHARED(double, scores, THREADS);
    add_partials(sums, score, partial, partial_score, parts, len, columns, scores);
}
