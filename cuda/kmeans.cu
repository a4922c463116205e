// k-means on unit vectors: centroids as a classifier, sums over stored points, and the two ways to
// move centroids.
//
// kmeans_accumulate reads each point once, rows·256 bytes in 16 bits: 8.4 GB or 2.0 ms at 4.3 TB/s
// for the 32.8 million points of a start of 20 batches. Up to 32 clusters a tile of 64 points in
// bf16 is 16 KB, 880 cycles of a multiprocessor's share of 4.3 TB/s; scores and sums are 96 HMMA a
// warp, 610 cycles in all, 2,500 instructions, 620 cycles, and 960 wavefronts of shared memory, two
// thirds of them the classifier's. Three blocks run on a multiprocessor, each with one or two tiles
// on their way. Points of other types count in three bf16 parts, and two blocks of f32. The other
// kernels touch K·128 numbers.
#include "head_clusters.cuh"

// Threads of a block that has a cluster.
constexpr int CLUSTER = 128;

// Metrics: f·c − ‖c‖²/2, f·c, and f·c/‖c‖.
constexpr int L2 = 0, DOT = 1, COSINE = 2;

// Points are copied in pieces of 16 bytes. NOTE: not ints, which build.rs would want to know.
constexpr auto PIECE = 16 / static_cast<int>(sizeof(act));
constexpr auto PIECES = D / PIECE, AT_ONCE = THREADS / PIECES;
// Blocks that a multiprocessor holds of kmeans_accumulate.
constexpr auto POINTS = sizeof(act) == 2 ? 3 : 2;

static_assert(TILE % AT_ONCE == 0 && PIECES * AT_ONCE == THREADS, "threads share a tile's pieces");
static_assert(L2 != DOT && DOT != COSINE && COSINE != L2, "metrics differ");
static_assert((CLUSTER & (CLUSTER - 1)) == 0 && (THREADS & (THREADS - 1)) == 0, "sums are halved");

// w (k, d), b (k) = the classifier of centroids (k, d) by `metric`. A block has a cluster.
KERNEL(kmeans_classifier, CLUSTER)(float* __restrict__ w, float* __restrict__ b,
                                   const float* __restrict__ centroids, int d, int metric) {
    SHARED(double, sums, CLUSTER);
    const int t = threadIdx.x;
    w += static_cast<size_t>(blockIdx.x) * d;
    centroids += static_cast<size_t>(blockIdx.x) * d;
    double square = 0.0;
    for (int j = t; j < d; j += CLUSTER) square += static_cast<double>(centroids[j]) * centroids[j];
    sums[t] = square;
    for (int half = CLUSTER / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) sums[t] += sums[t + half];
    }
    __syncthreads();
    square = sums[0];
    const double norm = sqrt(square) < 1e-12 ? 1e-12 : sqrt(square);
    for (int j = t; j < d; j += CLUSTER)
        w[j] = metric == COSINE ? static_cast<float>(centroids[j] / norm) : centroids[j];
    if (t == 0) b[blockIdx.x] = metric == L2 ? static_cast<float>(-0.5 * square) : 0.0f;
}

// As head_accumulate, from points (rows, D) that are stored; head_sums adds the parts. Dynamic
// shared memory: two tiles, of which one is on its way while the other is added up; or one, and k·D
// floats where `near`: then a tile is waited for at once.
KERNEL(kmeans_accumulate, THREADS,
       POINTS)(float* __restrict__ partial, double* __restrict__ partial_score,
               unsigned* __restrict__ counts, const act* __restrict__ points,
               const float* __restrict__ cw, const float* __restrict__ cb, size_t rows, int k,
               bool near) {
    DYNAMIC_SHARED(act, room);
    const size_t step = static_cast<size_t>(gridDim.x) * TILE;
    const int row = threadIdx.x / PIECES, piece = threadIdx.x % PIECES * PIECE;
    // Rows row, row + AT_ONCE, … of the tile at `first`, a piece of each; zeros behind the last row
    // of all.
    const auto fetch = [&](size_t first, act* tile) {
        if (first < rows) {
            act* const to = tile + row * PITCH<act> + piece;
            const act* const from = points + (first + row) * D + piece;
            if (rows - first >= TILE) {
#pragma unroll
                for (int i = 0; i < TILE; i += AT_ONCE) copy16(to + i * PITCH<act>, from + i * D);
            } else {
#pragma unroll 1
                for (int i = 0; i < TILE; i += AT_ONCE)
                    copy16(to + i * PITCH<act>, from + i * D, first + row + i < rows);
            }
        }
        commit();
    };
    Clusters<act, false> clusters;
    clusters.begin(room, partial, counts, cw, cb, k, near);
    const bool ahead = k <= CHUNK;
    size_t first = static_cast<size_t>(blockIdx.x) * TILE;
    if (ahead) fetch(first, room);
    for (int stage = 0; first < rows; first += step, stage ^= ahead) {
        if (ahead) {
            fetch(first + step, room + (stage ^ 1) * TILE * PITCH<act>);
            wait<1>();
        } else {
            fetch(first, room);
            wait<0>();
        }
        const int here = rows - first < TILE ? static_cast<int>(rows - first) : TILE;
        clusters.take(room + stage * TILE * PITCH<act>, [&](int row) { return row < here; });
    }
    clusters.end(partial_score + blockIdx.x);
}

// centroids (k, d) = sums/counts of the clusters that have points. A block has a cluster.
KERNEL(kmeans_mean, CLUSTER)(float* __restrict__ centroids, const float* __restrict__ sums,
                             const unsigned* __restrict__ counts, int d) {
    const unsigned m = counts[blockIdx.x];
    if (m == 0) return;
    const size_t row = static_cast<size_t>(blockIdx.x) * d;
    for (int j = threadIdx.x; j < d; j += CLUSTER)
        centroids[row + j] = sums[row + j] / static_cast<float>(m);
}

// Each empty cluster, in ascending order, takes half of the largest one (the lower index of
// equals); splits (1) += empty clusters. One block, since each split changes which cluster is the
// largest.
KERNEL(kmeans_split, THREADS)(float* centroids, unsigned* counts, unsigned* splits, int k, int d) {
    SHARED(unsigned, sizes, THREADS);
    SHARED(int, places, THREADS);
    const int t = threadIdx.x;
    unsigned empty = 0;
    for (int i = 0; i < k; ++i) {
        // All threads read the same number: nobody writes it before the barriers below.
        if (counts[i] != 0) continue;
        ++empty;
        // The largest cluster: each thread's own, then by halves.
        unsigned size = 0;
        int place = k;
        for (int j = t; j < k; j += THREADS) {
            if (counts[j] > size) {
                size = counts[j];
                place = j;
            }
        }
        sizes[t] = size;
        places[t] = place;
        for (int half = THREADS / 2; half > 0; half /= 2) {
            __syncthreads();
            if (t < half) {
                const unsigned other = sizes[t + half];
                if (other > sizes[t] || (other == sizes[t] && places[t + half] < places[t])) {
                    sizes[t] = other;
                    places[t] = places[t + half];
                }
            }
        }
        __syncthreads();
        const unsigned largest = sizes[0];
        const int donor = places[0];
        // Two centroids a little apart share its points. Without any point every cluster stays.
        if (largest > 0) {
            for (int j = t; j < d; j += THREADS) {
                const float e = j % 2 == 0 ? 1.0f / 1024.0f : -1.0f / 1024.0f;
                const float c = centroids[static_cast<size_t>(donor) * d + j];
                centroids[static_cast<size_t>(i) * d + j] = c * (1.0f + e);
                centroids[static_cast<size_t>(donor) * d + j] = c * (1.0f - e);
            }
            if (t == 0) {
                counts[i] = largest / 2;
                counts[donor] = largest - largest / 2;
            }
        }
        __syncthreads();
    }
    if (t == 0) *splits += empty;
}

// For each cluster with m = counts > 0: totals += m, η = m/(totals + 1e-6),
// centroid = (1 − η)·centroid + η·sums/m. A block has a cluster.
KERNEL(kmeans_step, CLUSTER)(float* __restrict__ centroids, float* __restrict__ totals,
                             const float* __restrict__ sums, const unsigned* __restrict__ counts,
                             int d) {
    const float m = static_cast<float>(counts[blockIdx.x]);
    const float total = totals[blockIdx.x] + m;
    // Nobody writes the total before all have read it.
    __syncthreads();
    if (m == 0.0f) return;
    if (threadIdx.x == 0) totals[blockIdx.x] = total;
    const float rate = m / (total + 1e-6f);
    const size_t row = static_cast<size_t>(blockIdx.x) * d;
    for (int j = threadIdx.x; j < d; j += CLUSTER) {
        centroids[row + j] = (1.0f - rate) * centroids[row + j] + rate * (sums[row + j] / m);
    }
}
