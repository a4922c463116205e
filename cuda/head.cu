// From the pyramid's lateral maps to features, labels and sums by cluster.
//
//   F = p2 + up(p3 + up(p4 + up(p5)))     the cascade, or
//   F = p2 + up(p3) + up(p4) + up(p5)     the direct merge; `up` is bilinear
//   F̂ = warp(F)/max(‖warp(F)‖₂, 1e-12),  scores = F̂·wᵀ + b
//
// p2 is (n, h, w, 128), p3 … p5 have half the size each, rounded up. Bytes of an op: the laterals
// once, 1.33·n·h·w·128·sizeof(act) (taps of coarse maps and of the warp are read again from L1 and
// L2), the cascade's o3 as f32 out and in, 0.25·n·h·w·128·4 each, and the result: 128 activations a
// pixel for features, 2 bytes for labels. At 256×80×80 in bf16 that is 0.98 GB with o3, 0.23 ms at
// 4.3 TB/s.
// Scores and sums are on tensor cores; what binds is the filling of tiles (head_fill.cuh).
#include "head_clusters.cuh"
#include "head_fill.cuh"

// o3 (n, h3, w3, D) = p3 + up(p4 + up(p5)). Grid (tiles of p3, n).
KERNEL(head_cascade, THREADS, FILLERS)(float* __restrict__ o3, const Laterals laterals) {
    const Upper o4 = {laterals, static_cast<int>(blockIdx.y)};
    const int h3 = o4.height(-1), w3 = o4.width(-1), first = blockIdx.x * TILE;
    const act* p3 = o4.map(laterals.p[1], -1);
    o3 += static_cast<size_t>(blockIdx.y) * h3 * w3 * D;
    const Frame frame = {0, 0, o4.height(0), o4.width(0), h3, w3};
    Warped<Upper> path = {{{o4}}, frame, 0.0f, 0.0f};
    walk(path, first, h3, w3, false, [&](int row, F8& f) {
        if (first + row >= h3 * w3) return;
        Raw<act> raw;
        raw.fetch(p3 + (first + row) * D);
        add_scaled(f, 1.0f, raw.value());
        store_walked(o3 + (first + row) * D, f);
    });
}

// features (n, h, w, D) = F̂. Grid (tiles of an image, n).
KERNEL(head_features, THREADS, FILLERS)(act* __restrict__ features, const Laterals laterals) {
    const int first = blockIdx.x * TILE, pixels = laterals.h * laterals.w;
    features += static_cast<size_t>(blockIdx.y) * laterals.h * laterals.w * D;
    for_features(maps_of(blockIdx.y, laterals), first, [&](int row, F8& f, float) {
        if (first + row < pixels) store_walked(features + (first + row) * D, f);
    });
}

// labels (images, h, w): row index[i] = the best class of each pixel of image i; counts (k) +=
// pixels of each class. Grid (tiles of an image, n); dynamic shared memory: TILE_BYTES.
KERNEL(head_assign, THREADS,
       FILLERS)(unsigned short* __restrict__ labels, unsigned* __restrict__ counts,
                const Laterals laterals, const unsigned* __restrict__ index,
                const float* __restrict__ cw, const float* __restrict__ cb, int images, int k) {
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
KERNEL(head_accumulate, THREADS,
       FILLERS - 1)(float* __restrict__ partial, double* __restrict__ partial_score,
                    unsigned* __restrict__ counts, const Laterals laterals,
                    const float* __restrict__ cw, const float* __restrict__ cb, int n, int k,
                    bool near) {
    DYNAMIC_SHARED(float, tile);
    const int pixels = laterals.h * laterals.w, tiles = (pixels + TILE - 1) / TILE;
    Clusters<float> clusters;
    clusters.begin(tile, partial + static_cast<size_t>(blockIdx.x) * k * D, counts, cw, cb, k,
                   near);
#pragma unroll 1
    for (int i = blockIdx.x; i < n * tiles; i += gridDim.x) {
        const int image = i / tiles, first = (i - image * tiles) * TILE;
        fill(tile, nullptr, maps_of(image, laterals), first);
        const int rows = pixels - first < TILE ? pixels - first : TILE;
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
