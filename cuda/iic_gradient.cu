// The maps' gradients of IIC's loss, from those of their correlations: the last step of iic.cu,
// whose head says what it costs.
#include "iic.cuh"

// The class of a pair that lies in the map.
__device__ __forceinline__ int class_of(int len, int p, int q) {
    if (p == 0 || q == 0) return FIRST;
    return p == len - 1 || q == len - 1 ? LAST : INNER;
}

// Columns of an image that a warp of iic_grad has.
constexpr int SEGMENT = 32;
constexpr int GRAD_THREADS = 256;
// Words of a matrix of c, and pairs of it that a thread loads.
constexpr int MATRIX = TILE * PITCH, PAIRS = TILE * TILE / 2;
constexpr int LOADED = 5;

static_assert(LOADED * GRAD_THREADS >= PAIRS, "threads load all of a matrix");
static_assert(2 * 2 * MATRIX * 4 <= PLAIN_SHARED, "two matrices fit");

// dmaps (2n, h, w, k) from c, the gradient of the correlations: what pairs of inner columns give,
// and 0 in columns at the border. blockIdx.x counts segments of a row of all images, `active` a
// block, blockIdx.y rows, blockIdx.z tiles of classes and views. Dynamic shared memory: for each of
// `active` warps 2 parts of SEGMENT + 2·rx pixels of a tile of classes of the other map, PITCH words
// each; more warps than fit load matrices alone.
//
// A block's pixels are of one row, so that all of them need the same matrices; each is loaded while
// the one before is multiplied. Of a lag the left factors begin so many pixels further.
KERNEL(iic_grad, GRAD_THREADS, 1)
(float* __restrict__ dmaps, const float* __restrict__ maps, const float* __restrict__ c, int n,
 int h, int w, int k, int ry, int rx, int active) {
    DYNAMIC_SHARED(unsigned, pixels);
    SHARED(unsigned, matrices, 2 * 2 * MATRIX);
    const int t = threadIdx.x, lane = t % WARP, warp = t / WARP;
    const int row = blockIdx.y, view = blockIdx.z % 2, a0 = blockIdx.z / 2 * TILE;
    const int segments = (w + SEGMENT - 1) / SEGMENT, segment = blockIdx.x * active + warp;
    const int image = segment / segments, left = segment % segments * SEGMENT;
    const bool works = warp < active && image < n;
    const int lx = 2 * rx + 1, held = SEGMENT + 2 * rx;
    const int other = (view == 0 ? n : 0) + image;
    unsigned* const own = pixels + warp * 2 * held * PITCH;

    // Tiles of 16 × 16 classes that exist.
    const int wide = (min(k - a0, TILE) + 15) / 16;
    float sum[SEGMENT / 16][TILE / 8][4] = {};
    for (int jy = 0; jy <= 2 * ry; ++jy) {
        const int from_row = view == 0 ? row - (ry - jy) : row + (ry - jy);
        if (from_row < 0 || from_row >= h) continue;
        const int line = jy * CLASSES + class_of(h, row, from_row);
        for (int b0 = 0; b0 < k; b0 += TILE) {
            const int deep = (min(k - b0, TILE) + 15) / 16;
            // Two numbers of a row of the matrix of lag jx.
            float2 raw[LOADED];
            const auto fetch = [&](int jx) {
                const float* const matrix =
                    c + (static_cast<size_t>(line) * lx * CLASSES + jx * CLASSES + INNER) * k * k;
#pragma unroll
                for (int i = 0; i < LOADED; ++i) {
                    const int at = t + i * GRAD_THREADS, b = b0 + at / (TILE / 2),
                              a = a0 + at % (TILE / 2) * 2;
                    const bool some = at < PAIRS && b < k;
                    raw[i] = make_float2(some && a < k ? matrix[b * k + a] : 0.0f,
                                         some && a + 1 < k ? matrix[b * k + a + 1] : 0.0f);
                }
            };
            const auto keep = [&](int jx) {
#pragma unroll
                for (int i = 0; i < LOADED; ++i) {
                    const int at = t + i * GRAD_THREADS;
                    unsigned* const to =
                        matrices + jx % 2 * 2 * MATRIX + at / (TILE / 2) * PITCH + at % (TILE / 2);
                    if (at < PAIRS) keep_parts(to, MATRIX, raw[i]);
                }
            };
            fetch(0);
            // The warp's own pixels.
            __syncwarp();
            for (int i = lane; works && i < held * (TILE / 2); i += WARP) {
                const int pixel = i / (TILE / 2), pair = i % (TILE / 2);
                keep_parts(
                    own + pixel * PITCH + pair, held * PITCH,
                    two_of(maps, other * h + from_row, left - rx + pixel, w, k, b0 + 2 * pair));
            }
            keep(0);
            for (int jx = 0; jx < lx; ++jx) {
                __syncthreads();
                if (jx + 1 < lx) fetch(jx + 1);
                const unsigned* const a =
                    own + (lane % 16 + (view == 0 ? jx : 2 * rx - jx)) * PITCH + lane / 16 * 4;
                const unsigned* const b =
                    matrices + jx % 2 * 2 * MATRIX + lane % 16 * PITCH + lane / 16 * 4;
                // NOTE: not summed by the tensor cores from lag to lag, which round towards zero.
                float products[SEGMENT / 16][TILE / 8][4] = {};
#pragma unroll
                for (int s = 0; s < TILE / 16; ++s) {
                    if (s >= deep || !works) break;
                    unsigned hi[SEGMENT / 16][4], lo[SEGMENT / 16][4];
#pragma unroll
                    for (int i = 0; i < SEGMENT / 16; ++i) {
                        load_matrix<false>(hi[i], a + 16 * i * PITCH + 8 * s);
                        load_matrix<false>(lo[i], a + (16 * i + held) * PITCH + 8 * s);
                    }
#pragma unroll
                    for (int j = 0; j < TILE / 16; ++j) {
                        if (j >= wide) break;
                        unsigned high[4], low[4];
                        load_matrix<true>(high, b + 16 * s * PITCH + 8 * j);
                        load_matrix<true>(low, b + 16 * s * PITCH + 8 * j + MATRIX);
#pragma unroll
                        for (int i = 0; i < SEGMENT / 16; ++i)
                            add_parts(products[i] + 2 * j, hi[i], lo[i], high, low);
                    }
                }
#pragma unroll
                for (int i = 0; i < SEGMENT / 16 * TILE / 8 * 4; ++i)
                    sum[i / (TILE / 2)][i / 4 % (TILE / 8)][i % 4] +=
                        products[i / (TILE / 2)][i / 4 % (TILE / 8)][i % 4];
                if (jx + 1 < lx) keep(jx + 1);
            }
            // The first matrix of the next row is kept where the last one but one was.
            __syncthreads();
        }
    }
    if (!works) return;
#pragma unroll
    for (int i = 0; i < SEGMENT / 16; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int column = left + 16 * i + 8 * half + lane / 4;
            if (column >= w) continue;
            const bool inner = column >= 1 && column <= w - 2;
            float* const out =
                dmaps + ((static_cast<size_t>(view * n + image) * h + row) * w + column) * k;
#pragma unroll
            for (int j = 0; j < TILE / 8 * 2; ++j) {
                const int a = a0 + j / 2 * 8 + lane % 4 * 2 + j % 2;
                if (a < k) out[a] = inner ? sum[i][j / 2][2 * half + j % 2] : 0.0f;
            }
        }
    }
}

// Pixels of a block of iic_grad_edge, and the floats from one class to the next of a tile of pixels.
constexpr int PIXELS = 64, APART = PIXELS + 4;
constexpr int EDGE_THREADS = 128;

static_assert(PIXELS / 4 * (TILE / SIDE) == EDGE_THREADS,
              "a thread for each 4 pixels × SIDE classes");
static_assert(PIXELS == 8 * (EDGE_THREADS / 16),
              "a thread loads 8 pixels, of every sixteenth class");
static_assert(APART % 4 == 0, "pixels are read 16 bytes at a time");
static_assert((TILE * APART + TILE * TILE) * sizeof(float) <= PLAIN_SHARED, "tiles fit");

// dmaps += what pairs with a column at the border give. blockIdx.x counts tiles of images, blockIdx.y
// rows and the `border` columns that are in such pairs, blockIdx.z tiles of classes and views.
KERNEL(iic_grad_edge, EDGE_THREADS)
(float* __restrict__ dmaps, const float* __restrict__ maps, const float* __restrict__ c, int n,
 int h, int w, int k, int ry, int rx, int border) {
    SHARED(float, xs, TILE * APART);
    SHARED(float, cs, TILE * TILE);
    const int t = threadIdx.x, tx = t % 8, ty = t / 8, view = blockIdx.z % 2,
              a0 = blockIdx.z / 2 * TILE;
    const int row = blockIdx.y / border, turn = blockIdx.y % border;
    const int column = turn <= rx ? turn : w - border + turn;
    const int lx = 2 * rx + 1;
    const float* other = maps + (view == 0 ? static_cast<size_t>(n) * h * w * k : 0);
    // Where column 0 of row 0 of the images lies that this thread loads pixels of, or −1.
    int base[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const int image = blockIdx.x * PIXELS + t / 16 + 8 * i;
        base[i] = image < n ? image * h * w * k : -1;
    }
    float acc[4][SIDE] = {};
    for (int jy = 0; jy <= 2 * ry; ++jy) {
        const int from_row = view == 0 ? row - (ry - jy) : row + (ry - jy);
        if (from_row < 0 || from_row >= h) continue;
        const int line = jy * CLASSES + class_of(h, row, from_row);
        for (int jx = 0; jx < lx; ++jx) {
            const int from = column - (view == 0 ? rx - jx : jx - rx);
            if (from < 0 || from >= w) continue;
            const int which = class_of(w, column, from);
            if (which == INNER) continue;
            const float* matrix =
                c + (static_cast<size_t>(line) * lx * CLASSES + jx * CLASSES + which) * k * k;
            for (int b0 = 0; b0 < k; b0 += TILE) {
                // Load TILE classes of the other map's pixels, and of the matrix.
                __syncthreads();
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    const float* x = other + base[i] + (from_row * w + from) * k + b0;
#pragma unroll
                    for (int j = t % 16; j < TILE; j += 16) {
                        xs[j * APART + t / 16 + 8 * i] = base[i] >= 0 && b0 + j < k ? x[j] : 0.0f;
                    }
                }
#pragma unroll
                for (int i = t / 16; i < TILE; i += 8) {
#pragma unroll
                    for (int j = t % 16; j < TILE; j += 16) {
                        cs[i * TILE + j] =
                            b0 + i < k && a0 + j < k ? matrix[(b0 + i) * k + a0 + j] : 0.0f;
                    }
                }
                // Multiply.
                __syncthreads();
#pragma unroll 4
                for (int i = 0; i < TILE; ++i) {
                    float b[SIDE];
                    const float4 x = *reinterpret_cast<const float4*>(xs + i * APART + ty * 4);
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
    // Results.
#pragma unroll
    for (int u = 0; u < 4; ++u) {
        const int image = blockIdx.x * PIXELS + ty * 4 + u;
        if (image >= n) continue;
        float* out = dmaps + ((static_cast<size_t>(view * n + image) * h + row) * w + column) * k;
#pragma unroll
        for (int v = 0; v < SIDE; ++v) {
            const int a = a0 + tx * SIDE + v;
            if (a < k) out[a] += acc[u][v];
        }
    }
}
