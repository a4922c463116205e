// The Sobel gradient of views, which IIC reads beside their colours.
//
// From channels 0 to 2 of x (n, h, w, 8) to channels 3 and 4, after view_render: greys of a tile
// and a pixel around it in shared memory. 16·h·w bytes are read and, since sectors go as a whole,
// written at 16 bits: 60×128² 31 MB, 8 µs at 4 TB/s.
#include "view.cuh"

// Columns and rows of a block's outputs; rows and columns of the greys that it reads.
constexpr int TILE = WARP;
constexpr int SOBEL_ROWS = THREADS / TILE;
constexpr int GREY_ROWS = SOBEL_ROWS + 2;
constexpr int GREY_COLS = TILE + 2;

// Channels 3 and 4 of x (n, h, w, 8) = the horizontal and the vertical Sobel gradient of the grey
// in 0..1, with zeros around the image. Blocks (⌈w/TILE⌉, ⌈h/SOBEL_ROWS⌉, n). NOTE: neighbours
// write channels 3 and 4 of pixels that are read here: only 0 to 2 may be touched.
KERNEL(view_sobel, THREADS)(act* x, int h, int w) {
    SHARED(float, greys, GREY_ROWS * GREY_COLS);
    const int left = blockIdx.x * TILE, top = blockIdx.y * SOBEL_ROWS;
    x += size_t(blockIdx.z) * h * w * 8;
    for (int i = threadIdx.x; i < GREY_ROWS * GREY_COLS; i += THREADS) {
        const int iy = top + i / GREY_COLS - 1, ix = left + i % GREY_COLS - 1;
        float g = 0;
        if (0 <= iy && iy < h && 0 <= ix && ix < w) {
            const act* const from = x + (size_t(iy) * w + ix) * 8;
            const auto level = [=](int c) {
                return to_float(from[c]) * deviation_of(c) + mean_of(c);
            };
            g = grey({level(0), level(1), level(2)});
        }
        greys[i] = g;
    }
    __syncthreads();
    const int ox = threadIdx.x % TILE, oy = threadIdx.x / TILE;
    if (left + ox >= w || top + oy >= h) return;
    const float* const g = greys + oy * GREY_COLS + ox;
    const float *const above = g, *const here = g + GREY_COLS, *const below = g + 2 * GREY_COLS;
    act* const to = x + (size_t(top + oy) * w + left + ox) * 8;
    to[3] = to_act(above[0] - above[2] + 2 * (here[0] - here[2]) + below[0] - below[2]);
    to[4] = to_act(above[0] - below[0] + 2 * (above[1] - below[1]) + above[2] - below[2]);
}
