// The maps' gradients of IIC's loss, from those of their correlations: the last step of iic.cu,
// whose head says what it costs.
#include "iic.cuh"

// The class of a pair that lies in the map.
__device__ __forceinline__ int class_of(int len, int p, int q) {
    if (p == 0 || q == 0) return FIRST;
    return p == len - 1 || q == len - 1 ? LAST : INNER;
}

// Pixels of a block of iic_grad, and the floats from one class to the next of a tile of pixels.
constexpr int PIXELS = 64, PITCH = PIXELS + 4;
constexpr int GRAD_THREADS = 128;

static_assert(PIXELS / 4 * (TILE / SIDE) == GRAD_THREADS,
              "a thread for each 4 pixels × SIDE classes");
static_assert(PIXELS == 8 * (GRAD_THREADS / 16),
              "a thread loads 8 pixels, of every sixteenth class");
static_assert(PITCH % 4 == 0, "pixels are read 16 bytes at a time");
static_assert((TILE * PITCH + TILE * TILE) * sizeof(float) <= PLAIN_SHARED, "tiles fit");

// dmaps (2n, h, w, k) from c, the gradient of the correlations. blockIdx.x counts tiles of pixels,
// blockIdx.y rows, blockIdx.z tiles of classes and views. Where `border` is 0, pixels are those of
// a row of all images, and get what pairs of inner columns give them. Else `border` columns of each
// row are taken one by one, pixels are those of a column of all images, and what pairs with a
// border column give is added.
KERNEL(iic_grad, GRAD_THREADS)(float* __restrict__ dmaps, const float* __restrict__ maps,
                               const float* __restrict__ c, int n, int h, int w, int k, int ry,
                               int rx, int border) {
    SHARED(float, xs, TILE * PITCH);
    SHARED(float, cs, TILE * TILE);
    const int t = threadIdx.x, tx = t % 8, ty = t / 8, view = blockIdx.z % 2,
              a0 = blockIdx.z / 2 * TILE;
    const int row = border ? blockIdx.y / border : blockIdx.y,
              turn = border ? blockIdx.y % border : 0;
    const int fixed = turn <= rx ? turn : w - border + turn;
    const int lx = 2 * rx + 1, all = border ? n : n * w;
    const float* other = maps + (view == 0 ? static_cast<size_t>(n) * h * w * k : 0);
    // Of each pixel that this thread loads: its column in the map (−1: none), and where column 0 of
    // row 0 of its image lies.
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
            const float* matrix =
                c + (static_cast<size_t>(line) * lx * CLASSES + jx * CLASSES + which) * k * k;
            for (int b0 = 0; b0 < k; b0 += TILE) {
                // Load TILE classes of the other map's pixels, and of the matrix.
                __syncthreads();
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    const int from = column[i] - lag;
                    const bool met =
                        border ? column[i] >= 0
                               : min(column[i], from) >= 1 && max(column[i], from) <= w - 2;
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
                        cs[i * TILE + j] =
                            b0 + i < k && a0 + j < k ? matrix[(b0 + i) * k + a0 + j] : 0.0f;
                    }
                }
                // Multiply.
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
    // Results.
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
