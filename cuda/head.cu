// From the pyramid's lateral maps to features, labels and sums by cluster.
//
//   F = p2 + up(p3 + up(p4 + up(p5)))     the cascade, or
//   F = p2 + up(p3) + up(p4) + up(p5)     the direct merge; `up` is bilinear
//   F̂ = warp(F)/max(‖warp(F)‖₂, 1e-12),  scores = F̂·wᵀ + b
//
// p2 is (n, h, w, 128), p3 … p5 have half the size each, rounded up. Bytes of an op: the laterals
// once, 1.33·n·h·w·128·sizeof(act) (taps of coarse maps and of the warp are read again from L1 and
// L2), and the result: 128 activations a pixel for features, 2 bytes for labels. At 256×80×80 in
// bf16 that is 0.56 GB for labels, 0.13 ms at 4.3 TB/s. Where features are not products
// (head_fill.cuh) a cascade's o3 goes out and in as f32 besides, 0.25·n·h·w·128·4 bytes each.
// Features, scores and sums are on tensor cores; what binds is instructions, of which making
// features is more than half.
#include "head_clusters.cuh"
#include "head_fill.cuh"

// o3 (n, h3, w3, D) = p3 + up(p4 + up(p5)). Grid (tiles of p3, n).
KERNEL(head_cascade, THREADS, FILLERS)(float* __restrict__ o3, const Laterals laterals) {
    const Upper o4 = {laterals, static_cast<int>(blockIdx.y)};
    const int h3 = o4.height(-1), w3 = o4.width(-1);
    const Spot spot = spot_of(blockIdx.x, h3, w3);
    const act* p3 = o4.map(laterals.p[1], -1);
    o3 += static_cast<size_t>(blockIdx.y) * h3 * w3 * D;
    const Frame frame = {0, 0, o4.height(0), o4.width(0), h3, w3};
    Warped<Upper> path = {{{o4}}, frame, 0.0f, 0.0f};
    walk(path, spot, false, [&](int row, F8& f) {
        if (!spot.has(row)) return;
        Raw<act> raw;
        raw.fetch(p3 + spot.pixel(row) * D);
        add_scaled(f, 1.0f, raw.value());
        store_walked(o3 + spot.pixel(row) * D, f);
    });
}

// features (n, h, w, D) = F̂. Grid (tiles of an image, n).
KERNEL(head_features, THREADS, FILLERS - 1)(act* __restrict__ features, const Laterals laterals) {
    const Spot spot = spot_of(blockIdx.x, laterals.h, laterals.w);
    features += static_cast<size_t>(blockIdx.y) * laterals.h * laterals.w * D;
    for_features(maps_of(blockIdx.y, laterals), spot, [&](int row, F8& f, float) {
        if (spot.has(row)) store_walked(features + spot.pixel(row) * D, f);
    });
}

// labels (images, h, w): row index[i] = the best class of each pixel of image i; counts (k) +=
// pixels of each class. Grid (blocks that take the tiles of an image in turn, n); dynamic shared
// memory: TILE_BYTES.
KERNEL(head_assign, THREADS,
       FILLERS - 1)(unsigned short* __restrict__ labels, unsigned* __restrict__ counts,
                    const Laterals laterals, const unsigned* __restrict__ index,
                    const float* __restrict__ cw, const float* __restrict__ cb, int images, int k) {
    DYNAMIC_SHARED(float, tile);
    SHARED(unsigned, chunk, CHUNK_WORDS);
    SHARED(float, bias, CHUNK);
    SHARED(unsigned short, places, TILE);
    SHARED(unsigned, histogram, CHUNK);
    const int t = threadIdx.x;
    const Share share = my_share(across(laterals.h) * across(laterals.w));
    if (k <= CHUNK) load_chunk(chunk, bias, cw, cb, k, 0);
    if (t < CHUNK) histogram[t] = 0;
#pragma unroll 1
    for (int i = share.begin; i < share.end; ++i) {
        const Spot spot = spot_of(i, laterals.h, laterals.w);
        fill(tile, nullptr, maps_of(blockIdx.y, laterals), spot);
        int place[2];
        float top[2];
        arg_max(place, top, tile, chunk, bias, cw, cb, k);
        // Of the four lanes of two pixels the first and the second speak for one each.
        if (t % 4 < 2) {
            const int pixel = my_pixel(t % 2), mine = t % 4 == 0 ? place[0] : place[1];
            places[pixel] = static_cast<unsigned short>(mine);
            if (k <= CHUNK && spot.has(pixel)) atomicAdd(histogram + mine, 1u);
        }
        __syncthreads();
        const unsigned row = index[blockIdx.y];
        // NOTE: an index outside of the label store is the caller's mistake; it must not become a
        // wild write.
        if (row >= static_cast<unsigned>(images)) continue;
        if (t < TILE && spot.has(t))
            labels[static_cast<size_t>(row) * laterals.h * laterals.w + spot.pixel(t)] = places[t];
        if (k > CHUNK) count(counts, places, [&](int row) { return spot.has(row); });
    }
    __syncthreads();
    if (k <= CHUNK) count(counts, histogram, k);
}

// partial (parts, k, D), partial_score (parts) = sums of F̂ by cluster and of the best score over a
// block's tiles; counts (k) += pixels of each cluster. `parts` blocks; tile i of all is tile i %
// tiles of image i / tiles. Dynamic shared memory: TILE_BYTES, and behind it k·D floats where
// `near`, CHUNK·D up to a chunk.
KERNEL(head_accumulate, THREADS,
       FILLERS - 1)(float* __restrict__ partial, double* __restrict__ partial_score,
                    unsigned* __restrict__ counts, const Laterals laterals,
                    const float* __restrict__ cw, const float* __restrict__ cb, int n, int k,
                    bool near) {
    DYNAMIC_SHARED(float, tile);
    const int tiles = across(laterals.h) * across(laterals.w);
    Clusters<float, true> clusters;
    clusters.begin(tile, partial, counts, cw, cb, k, near);
#pragma unroll 1
    for (int i = blockIdx.x; i < n * tiles; i += gridDim.x) {
        const int image = i / tiles;
        const Spot spot = spot_of(i - image * tiles, laterals.h, laterals.w);
        fill(tile, nullptr, maps_of(image, laterals), spot);
        clusters.take(tile, [&](int row) { return spot.has(row); });
    }
    clusters.end(partial_score + blockIdx.x);
}

// taps = what head_taps.cuh says, of each image where there are crops, else of all. Grid (n or 1).
KERNEL(head_taps, THREADS)(float* __restrict__ taps, const Laterals laterals, bool cascade) {
    const int image = blockIdx.x, h = laterals.h, w = laterals.w, t = threadIdx.x;
    const Window window = window_of(laterals.crops, image, h, w);
    const Taps out = taps_of(taps, laterals, image);
    // NOTE: all threads go along, for the shuffles.
#pragma unroll 1
    for (int begin = 0; begin < w; begin += THREADS) {
        const int x = begin + t, pixel = x < w ? x : w - 1;
        const Band band = finest(pixel, w, window.left, window.side, window.flip);
        const auto take = [&](int l, const Band& band, int first, int count, bool exact) {
            if (x / STRIDE >= across(w)) return;
            StripTaps& strip = out.strips[x / STRIDE];
            strip.level[l] = {first * D, (halved(w, l) - 1) * D,
                              l == 0 && count > STRIDE ? 2 * STRIDE : STRIDE, exact};
            for (int i = 0; i < (l == 0 ? 2 : 1) * STRIDE; ++i)
                strip.weights[l + (l > 0) + i / STRIDE][x % STRIDE][i % STRIDE] =
                    band.at(first + i);
        };
        each_level<STRIDE>(
            laterals, band, w, cascade, [&](int l) { return laterals.along[l]; }, take);
    }
#pragma unroll 1
    for (int begin = 0; begin < h; begin += THREADS) {
        const int y = begin + t, pixel = y < h ? y : h - 1;
        const Band band = finest(pixel, h, window.top, window.side, false);
        const auto take = [&](int l, const Band& band, int first, int count, bool exact) {
            if (y / 2 >= (h + 1) / 2) return;
            PairTaps& pair = out.pairs[y / 2];
            const bool narrow = l >= laterals.wide;
            const int pitch = halved(w, l) * D, steps = narrow ? (count + 3) / 4 : (count + 1) / 2;
            pair.level[l] = {first * pitch, (halved(h, l) - 1) * pitch, pitch, steps, exact};
            pair.area[l] = halved(h, l) * pitch;
            for (int i = 0; i < 4 * STEPS; ++i) {
                const int step = i / 4, odd = i / 2 % 2, lower = i % 2;
                const int row = narrow ? 4 * step + odd + 2 * lower : 2 * step + lower;
                pair.weights[l][step][odd][2 * lower + y % 2] = band.at(first + row);
            }
        };
        each_level<2>(laterals, band, h, cascade, [&](int l) { return laterals.down[l]; }, take);
    }
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
