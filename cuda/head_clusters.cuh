// What the kernels share that label pixels (or stored points) and sum them by cluster: the best
// class of each, counts and sums by cluster, and how sums of several blocks are put together.
#pragma once
#include "head_scores.cuh"

inline namespace PICIE_SUFFIX(head) {

// Up to so many clusters are summed in shared memory, beside a tile; up to a chunk in registers.
constexpr int NEAR = 64;
// Columns of a block that adds partial sums: a warp has one row of them.
constexpr int SUMMED = WARP;
// Bytes of static shared memory of a block that sums by cluster.
constexpr int CLUSTERS_BYTES =
    (CHUNK_WORDS + 2 * CHUNK + WARPS) * sizeof(float) + TILE * 2 + THREADS * sizeof(double);
// What the one of equal_pairs, as bf16, must be multiplied with.
constexpr float PER_ONE = 128.0f;

static_assert(THREADS == D, "a thread has a channel of sums by cluster");
static_assert(WARPS * 32 == D, "a warp sums 32 channels");
static_assert(NEAR * D <= TILE * ROW, "near sums fit where a second tile would lie");
static_assert(2 * TILE_BYTES + CLUSTERS_BYTES <= MOST_SHARED, "two tiles fit beside a chunk");

// Whether a tile's numbers are left factors as they lie.
template <class T>
constexpr bool IS_BF16 = false;
template <>
constexpr bool IS_BF16<__nv_bfloat16> = true;

// The best class (the first of equals) of this lane's pixels, and its score: −∞ and the first class
// where no score is a number, or one is infinite. All four lanes of a pixel get them. Where all k
// classes fit one chunk the caller has loaded it. Begins with a barrier.
template <class T>
__device__ __forceinline__ void arg_max(int (&place)[2], float (&top)[2], const T* tile,
                                        unsigned* chunk, float* bias, const float* w,
                                        const float* b, int k) {
    top[0] = top[1] = -INFINITY;
    place[0] = place[1] = 0;
#pragma unroll 1
    for (int first = 0; first < k; first += CHUNK) {
        __syncthreads();
        if (k > CHUNK) {
            load_chunk<IS_BF16<T>>(chunk, bias, w, b, k, first);
            __syncthreads();
        }
        float s[4][4];
        scores(s, tile, chunk, bias);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const float score = s[j / 2][2 * i + j % 2];
                if (score > top[i]) {
                    top[i] = score;
                    place[i] = first + my_class(j / 2, j % 2);
                }
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        best_of_lanes<4>(top[i], place[i]);
        if (top[i] == INFINITY) {
            top[i] = -INFINITY;
            place[i] = 0;
        }
    }
}

// counts (k ≤ CHUNK) += the block's histogram.
__device__ __forceinline__ void count(unsigned* counts, const unsigned* histogram, int k) {
    const int t = threadIdx.x;
    if (t < k && histogram[t] > 0) atomicAdd(counts + t, histogram[t]);
}

// counts += the labels of the pixels that the tile has: one atomic a label that occurs, by the
// first pixel that has it.
template <class Has>
__device__ __forceinline__ void count(unsigned* counts, const unsigned short* labels, Has has) {
    const int p = threadIdx.x;
    if (p >= TILE || !has(p)) return;
    const int mine = labels[p];
    unsigned same = 0, before = 0;
#pragma unroll 1
    for (int q = 0; q < TILE; ++q) {
        if (!has(q)) continue;
        same += labels[q] == mine;
        before += q < p && labels[q] == mine;
    }
    if (before == 0) atomicAdd(counts + mine, same);
}

// sums (k, D) += the rows that the tile has, each to the row of its label, by the thread that owns
// the channel.
template <class T, class Has>
__device__ __forceinline__ void add_rows(float* sums, const T* tile, const unsigned short* labels,
                                         Has has) {
    const int c = threadIdx.x;
    for (int p = 0; p < TILE; ++p)
        if (has(p))
            sums[static_cast<size_t>(labels[p]) * D + c] += to_float(tile[p * PITCH<T> + c]);
}

// Where the label of a pixel lies: those that a lane multiplies, 2·t, 2·t + 1, 2·t + 8 and 2·t + 9
// of 16, are neighbours.
__device__ __forceinline__ int seat(int pixel) {
    return pixel / 16 * 16 + pixel % 8 / 2 * 4 + pixel % 16 / 8 * 2 + pixel % 2;
}

// What a block adds up over its tiles: rows by cluster, pixels by cluster, and the best scores.
//
//   begin(…);  for each tile { fill it; take(tile, has); }  end(…)
//
// k ≤ CHUNK: sums += onehot(labels)ᵀ·tile on tensor cores, numbers that are not bf16 in three bf16
// parts, which are all of an f32; products with 2⁻⁷ are exact, and so are sums but for the rounding
// of f32. A warp has 32 channels of 32 clusters, 32 sums a lane, from the first tile to the last.
// Rows whose features are not all finite are added one by one, so that they reach no other cluster.
// Else sums are in shared memory where `near`, or in the block's part of `partial` itself.
// ASIDE: those in registers lie in shared memory between tiles, as near sums do.
template <class T, bool ASIDE>
struct Clusters {
    const float *cw, *cb;
    int k;
    bool near;
    // Dynamic shared memory: a tile or two, then near sums behind the first.
    T* room;
    float* partial;  // of all blocks
    unsigned* counts;
    // Shared memory, see begin.
    unsigned *chunk, *histogram, *odd;
    float* bias;
    unsigned short* labels;
    double* scores;  // a thread's each: registers are short where tiles are filled
    float sums[2][4][4];

    // This thread's place, of eight that lie THREADS apart, for sums that are aside.
    __device__ __forceinline__ float4* aside() const {
        return reinterpret_cast<float4*>(near_sums()) + threadIdx.x;
    }
    // The block's part. NOTE: not kept, since registers are short.
    __device__ __forceinline__ float* part() const {
        return partial + static_cast<size_t>(blockIdx.x) * k * D;
    }
    __device__ __forceinline__ float* near_sums() const {
        return reinterpret_cast<float*>(room + TILE * PITCH<T>);
    }

    // No barrier: take begins with one.
    __device__ __forceinline__ void begin(T* room, float* partial, unsigned* counts,
                                          const float* cw, const float* cb, int k, bool near) {
        const int t = threadIdx.x;
        this->room = room;
        this->partial = partial;
        this->counts = counts;
        this->cw = cw;
        this->cb = cb;
        this->k = k;
        this->near = near;
        SHARED(unsigned, chunk_room, CHUNK_WORDS);
        SHARED(float, bias_room, CHUNK);
        SHARED(unsigned, histogram_room, CHUNK);
        SHARED(unsigned, odd_room, WARPS);
        SHARED(unsigned short, labels_room, TILE);
        SHARED(double, scores_room, THREADS);
        chunk = chunk_room;
        bias = bias_room;
        histogram = histogram_room;
        odd = odd_room;
        labels = labels_room;
        scores = scores_room;
        scores[t] = 0.0;
#pragma unroll
        for (int i = 0; i < 32; ++i) sums[i / 16][i / 4 % 4][i % 4] = 0.0f;
        if (k <= CHUNK) {
            if constexpr (ASIDE) put_aside();
            load_chunk<IS_BF16<T>>(chunk, bias, cw, cb, k, 0);
            if (t < CHUNK) histogram[t] = 0;
        } else if (near) {
            for (int row = 0; row < k; ++row) near_sums()[row * D + t] = 0.0f;
        } else {
            for (int row = 0; row < k; ++row) part()[static_cast<size_t>(row) * D + t] = 0.0f;
        }
    }

    // Adds the rows of a tile that it `has`; all threads have filled it, the others with zeros.
    // Begins and ends with a barrier.
    template <class Has>
    __device__ __forceinline__ void take(const T* tile, Has has) {
        int place[2];
        float top[2];
        arg_max(place, top, tile, chunk, bias, cw, cb, k);
        // Of the four lanes of two pixels the first and the second speak for one each.
        const int t = threadIdx.x % 4, pixel = my_pixel(t % 2), mine = t == 0 ? place[0] : place[1];
        const float best = t == 0 ? top[0] : top[1];
        const bool speaks = t < 2 && has(pixel);
        if (speaks) scores[threadIdx.x] += best;
        if (k <= CHUNK) {
            if (t < 2) {
                labels[seat(pixel)] =
                    __half_as_ushort(__float2half(static_cast<float>(has(pixel) ? mine : CHUNK)));
            }
            if (speaks) atomicAdd(histogram + mine, 1u);
            const bool wild = __any_sync(ALL_LANES, speaks && best == -INFINITY);
            if (threadIdx.x % WARP == 0) odd[threadIdx.x / WARP] = wild;
        } else if (t < 2) {
            labels[pixel] = static_cast<unsigned short>(mine);
        }
        __syncthreads();
        if (k <= CHUNK) {
            unsigned wild = 0;
#pragma unroll
            for (int i = 0; i < WARPS; ++i) wild |= odd[i];
            if constexpr (ASIDE) take_back();
            if (wild) {
                add_one_by_one(tile, has);
            } else {
                add_products(tile);
            }
            if constexpr (ASIDE) put_aside();
        } else {
            count(counts, labels, has);
            if (near) {
                add_rows(near_sums(), tile, labels, has);
            } else {
                add_rows(part(), tile, labels, has);
            }
        }
        __syncthreads();
    }

    // sum += one-hot rows · the 16 rows of the tile from `from` on, where this lane begins.
    __device__ __forceinline__ void add_step(float (&sum)[2][4][4], const unsigned (&a)[2][4],
                                             const T* from) {
        const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
        if constexpr (IS_BF16<T>) {
            // A load brings 16 channels, which are the right factor as they lie.
#pragma unroll
            for (int j = 0; j < 4; j += 2) {
                unsigned x[4];
                load_matrix<true>(x, from + lane % 16 * PITCH<T> + lane / 16 * 8 + 8 * j);
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const unsigned b[2] = {x[i / 2 * 2], x[i / 2 * 2 + 1]};
                    mma(sum[i % 2][j + i / 2], a[i % 2], b);
                }
            }
        } else {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                unsigned parts[3][2];
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const T* const at = from + (2 * t + 8 * i) * PITCH<T> + g + 8 * j;
                    const float x = to_float(at[0]), y = to_float(at[PITCH<T>]);
                    const unsigned hi = pack_bf16(x, y);
                    const float x1 = x - first_of(hi), y1 = y - second_of(hi);
                    const unsigned lo = pack_bf16(x1, y1);
                    parts[0][i] = hi;
                    parts[1][i] = lo;
                    parts[2][i] = pack_bf16(x1 - first_of(lo), y1 - second_of(lo));
                }
#pragma unroll
                for (int m = 0; m < 2; ++m) {
#pragma unroll
                    for (int i = 2; i >= 0; --i) mma(sum[m][j], a[m], parts[i]);
                }
            }
        }
    }

    __device__ __forceinline__ void put_aside() const {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float* const x = sums[i / 4][i % 4];
            aside()[i * THREADS] = make_float4(x[0], x[1], x[2], x[3]);
        }
    }
    __device__ __forceinline__ void take_back() {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float4 x = aside()[i * THREADS];
            const float from[4] = {x.x, x.y, x.z, x.w};
            for (int l = 0; l < 4; ++l) sums[i / 4][i % 4][l] = from[l];
        }
    }

    __device__ __forceinline__ void add_products(const T* tile) {
        const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
        float tiles[2][4][4] = {};
        // The clusters of a lane's rows of the left factor, twice each.
        unsigned own[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            own[i] = __half_as_ushort(__float2half(static_cast<float>(g + 8 * i)));
            own[i] |= own[i] << 16;
        }
#pragma unroll 1
        for (int p = 0; p < TILE; p += 16) {
            // Rows 2·t and the next, then those 8 below.
            const uint2 pairs = *reinterpret_cast<const uint2*>(labels + p + 4 * t);
            unsigned a[2][4];
#pragma unroll
            for (int i = 0; i < 8; ++i)
                a[i / 4][i % 4] =
                    equal_pairs(i % 4 < 2 ? pairs.x : pairs.y, own[i / 4 * 2 + i % 2]);
            add_step(tiles, a, tile + p * PITCH<T> + threadIdx.x / WARP * 32);
        }
        // NOTE: not summed by the tensor cores from tile to tile, which round towards zero.
#pragma unroll
        for (int i = 0; i < 32; ++i)
            sums[i / 16][i / 4 % 4][i % 4] += PER_ONE * tiles[i / 16][i / 4 % 4][i % 4];
    }

    template <class Has>
    __device__ __forceinline__ void add_one_by_one(const T* tile, Has has) {
        const int lane = threadIdx.x % WARP;
        const T* const mine = tile + threadIdx.x / WARP * 32 + lane % 4 * 2;
#pragma unroll 1
        for (int p = 0; p < TILE; ++p) {
            if (!has(p)) continue;
            const int label =
                static_cast<int>(__half2float(__ushort_as_half(labels[seat(p)]))) - lane / 4;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (label != 8 * i) continue;
#pragma unroll
                for (int j = 0; j < 8; ++j)
                    sums[i / 2][j / 2][i % 2 * 2 + j % 2] +=
                        to_float(mine[p * PITCH<T> + j / 2 * 8 + j % 2]);
            }
        }
    }

    // partial (k, D) and partial_score = the block's sums; counts += its pixels by cluster.
    __device__ __forceinline__ void end(double* partial_score) {
        const int t = threadIdx.x, lane = t % WARP;
        if (k <= CHUNK) {
            if constexpr (ASIDE) take_back();
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                const int m = i / 8, j = i / 2 % 4, row = 16 * m + lane / 4 + 8 * (i % 2);
                const int column = t / WARP * 32 + 8 * j + lane % 4 * 2;
                if (row < k) {
                    *reinterpret_cast<float2*>(part() + row * D + column) =
                        make_float2(sums[m][j][i % 2 * 2], sums[m][j][i % 2 * 2 + 1]);
                }
            }
            count(counts, histogram, k);
        } else if (near) {
            for (int row = 0; row < k; ++row) part()[row * D + t] = near_sums()[row * D + t];
        }
        double score = scores[t];
#pragma unroll
        for (int step = WARP / 2; step > 0; step >>= 1)
            score += __shfl_xor_sync(ALL_LANES, score, step);
        if (lane == 0) scores[t] = score;
        __syncthreads();
        if (t == 0) {
            double total = 0.0;
            for (int i = 0; i < THREADS; i += WARP) total += scores[i];
            *partial_score = total;
        }
    }
};

// sums (len) += Σ partial (parts, len), SUMMED columns a block, WARPS threads a column; unless null
// score (1) += Σ partial_score (parts), by the first block. `columns` (THREADS) and `scores`
// (THREADS) are shared memory.
__device__ __forceinline__ void add_partials(float* sums, float* score, const float* partial,
                                             const double* partial_score, int parts, size_t len,
                                             float* columns, double* scores) {
    const int t = threadIdx.x, row = t / SUMMED;
    const size_t column = static_cast<size_t>(blockIdx.x) * SUMMED + t % SUMMED;
    float sum = 0.0f;
    if (column < len) {
        for (int part = row; part < parts; part += WARPS) sum += partial[part * len + column];
    }
    columns[t] = sum;
    double share = 0.0;
    if (blockIdx.x == 0 && score != nullptr) {
        for (int part = t; part < parts; part += THREADS) share += partial_score[part];
    }
    scores[t] = share;
    __syncthreads();
    if (row == 0 && column < len) {
        float total = 0.0f;
        for (int i = 0; i < WARPS; ++i) total += columns[SUMMED * i + t];
        sums[column] += total;
    }
    if (blockIdx.x == 0 && t == 0 && score != nullptr) {
        double total = 0.0;
        for (int i = 0; i < THREADS; ++i) total += scores[i];
        *score += static_cast<float>(total);
    }
}

}  // namespace PICIE_SUFFIX(head)
