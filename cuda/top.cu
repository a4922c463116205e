// The best rows of many, for each query: best (q, n), places (q, n) = the n best among themselves
// and scores (rows, q), sorted, of equal scores the lower place first.
//
// Bytes: scores are read once, 4·rows·q, which at 205 thousand rows and 32 queries is 26 MB, 7 µs
// at 4 TB/s. A block reads one query's column, so a sector of 32 bytes is asked for by 8 blocks;
// all but the first find it in the second-level cache. Few rows are better than what is kept
// already, and a block whose 256 rows hold none goes on after one barrier. Where some are better,
// each row and each entry of the list counts what is better than itself: that is its place in the
// new list, whatever the order of threads.
#include "common.cuh"

// Rows that a block looks at at once, a thread each.
constexpr int ROWS = 256;
// The longest list.
constexpr int MOST = 64;
// The place of an entry that does not exist.
constexpr unsigned NOWHERE = 0xffffffffu;

static_assert(MOST <= ROWS, "a thread for each entry of a list");

// Whether entry a stands before entry b in a list.
__device__ __forceinline__ bool better(float a, unsigned a_place, float b, unsigned b_place) {
    return a > b || (a == b && a_place < b_place);
}

// A sorted list of `n` in shared memory, and the block's candidates for it.
struct List {
    float* best;       // (MOST)
    unsigned* places;  // (MOST)
    float* scores;     // (ROWS)
    unsigned* from;    // (ROWS)
    // (3), zero at first: three counters used in rotation (one barrier a round), each how many
    // candidates of a round enter the list.
    unsigned* wanted;
    int n;

    // Takes a candidate of each thread into the list; one that is not `allowed`, or NaN, does not
    // enter. The whole block calls it, a barrier after the list was complete. `round` counts the
    // calls.
    __device__ __forceinline__ void take(float score, unsigned place, bool allowed,
                                         int round) const {
        const int t = threadIdx.x;
        const bool enters = allowed && better(score, place, best[n - 1], places[n - 1]);
        if (enters) atomicAdd(wanted + round % 3, 1u);
        __syncthreads();
        // All have read this counter's last value: it is used again two rounds on, behind the next
        // round's barrier.
        if (t == 0) wanted[(round + 2) % 3] = 0;
        if (wanted[round % 3] == 0) return;

        // Ranks: how many are better.
        scores[t] = enters ? score : -INFINITY;
        from[t] = enters ? place : NOWHERE;
        __syncthreads();
        const float kept = t < n ? best[t] : 0.0f;
        const unsigned kept_place = t < n ? places[t] : 0;
        int kept_rank = t, rank = 0;
        for (int i = 0; i < ROWS; ++i) {
            kept_rank += better(scores[i], from[i], kept, kept_place);
            rank += better(scores[i], from[i], score, place);
        }
        for (int i = 0; i < n; ++i) rank += better(best[i], places[i], score, place);
        // Write the new list.
        __syncthreads();
        if (t < n && kept_rank < n) {
            best[kept_rank] = kept;
            places[kept_rank] = kept_place;
        }
        if (enters && rank < n) {
            best[rank] = score;
            places[rank] = place;
        }
        __syncthreads();
    }
};

// Declares a list of `kept` entries with its shared memory, counters at zero; the caller fills in
// the entries and waits.
#define LIST(list, kept)                                 \
    SHARED(float, list##_best, MOST);                    \
    SHARED(unsigned, list##_places, MOST);               \
    SHARED(float, list##_scores, ROWS);                  \
    SHARED(unsigned, list##_from, ROWS);                 \
    SHARED(unsigned, list##_wanted, 3);                  \
    if (threadIdx.x < 3) list##_wanted[threadIdx.x] = 0; \
    const List list { list##_best, list##_places, list##_scores, list##_from, list##_wanted, kept }

// part, part_places (q, parts, keep) = the `keep` best of each `span` rows that are better than the
// last of best (q, n); missing ones are −∞ at NOWHERE. Grid (parts, q).
KERNEL(top_part, ROWS)(float* __restrict__ part, unsigned* __restrict__ part_places,
                       const float* __restrict__ scores, const float* __restrict__ best,
                       const unsigned* __restrict__ places, int rows, int q, int n, int span,
                       int keep, unsigned first) {
    LIST(list, keep);
    const int t = threadIdx.x, query = blockIdx.y;
    if (t < keep) {
        list.best[t] = -INFINITY;
        list.places[t] = NOWHERE;
    }
    __syncthreads();
    const float bar = best[query * n + n - 1];
    const unsigned bar_place = places[query * n + n - 1];
    const int begin = blockIdx.x * span, end = rows - begin < span ? rows : begin + span;
    int round = 0;
    for (int base = begin; base < end; base += ROWS) {
        const int row = base + t;
        const unsigned place = first + row;
        const float score = row < end ? scores[static_cast<size_t>(row) * q + query] : -INFINITY;
        list.take(score, place, row < end && better(score, place, bar, bar_place), round++);
    }
    if (t < keep) {
        const size_t at = (static_cast<size_t>(query) * gridDim.x + blockIdx.x) * keep + t;
        part[at] = list.best[t];
        part_places[at] = list.places[t];
    }
}

// best, places (q, n) = the n best among themselves and `count` candidates of each query. Grid (q).
KERNEL(top_merge, ROWS)(float* __restrict__ best, unsigned* __restrict__ places,
                        const float* __restrict__ part, const unsigned* __restrict__ part_places,
                        int count, int n) {
    LIST(list, n);
    const int t = threadIdx.x, query = blockIdx.x;
    best += query * n;
    places += query * n;
    if (t < n) {
        list.best[t] = best[t];
        list.places[t] = places[t];
    }
    __syncthreads();
    part += static_cast<size_t>(query) * count;
    part_places += static_cast<size_t>(query) * count;
    int round = 0;
    for (int base = 0; base < count; base += ROWS) {
        const int i = base + t;
        const float score = i < count ? part[i] : -INFINITY;
        const unsigned place = i < count ? part_places[i] : NOWHERE;
        list.take(score, place, place != NOWHERE, round++);
    }
    if (t < n) {
        best[t] = list.best[t];
        places[t] = list.places[t];
    }
}
