// Images that are read as they are: normalised, without colours or geometry. So are the views of an
// epoch after they were rendered once, and the pictures of an evaluation.
//
//   images[index] (h·w, 3) u8 → (x − MEAN)/STD → x (n, h·w, 4 or 8) act
//
// A lane has a pixel, whose three bytes lie in one word or in two neighbours. Floor: 3 bytes read
// and 8 written a pixel at 16 bits, 144 MB for 128 images of 320²: 48 µs at 3 TB/s. By a count of
// SASS a warp's 32 pixels take 54 instructions, 24 µs of an H100's four a cycle.
#include "view_colour.cuh"

// Pixels of a thread, whose loads are all in flight at once.
constexpr int DEEP = 4;

// x (n, pixels, channels) = images[index] (n), channels from 3 on zero; `pixels` of an image is a
// multiple of 4. Blocks (⌈pixels/(THREADS·DEEP)⌉, n).
KERNEL(view_load, THREADS)(act* __restrict__ x, const unsigned char* __restrict__ images,
                           const unsigned* __restrict__ index, int pixels, int channels) {
    const unsigned* const words =
        reinterpret_cast<const unsigned*>(images + size_t(index[blockIdx.y]) * pixels * 3);
    const unsigned first = blockIdx.x * (THREADS * DEEP) + threadIdx.x, end = pixels;
    unsigned low[DEEP], high[DEEP];
#pragma unroll
    for (int k = 0; k < DEEP; ++k) {
        const unsigned byte = 3 * min(first + k * THREADS, end - 1);
        low[k] = __ldg(words + byte / 4);
        high[k] = __ldg(words + (byte + 2) / 4);
    }
    act* to = x + (size_t(blockIdx.y) * end + first) * channels;
#pragma unroll
    for (int k = 0; k < DEEP; ++k, to += THREADS * channels) {
        // The same for all k, as THREADS is a multiple of 4.
        const unsigned rgb = __byte_perm(low[k], high[k], 0x3210 + 0x1111 * (3 * first % 4));
        const float colour[3] = {level(__byte_perm(rgb, BIAS, 0x7440)),
                                 level(__byte_perm(rgb, BIAS, 0x7441)),
                                 level(__byte_perm(rgb, BIAS, 0x7442))};
        if (first + k * THREADS < end) store_pixel(to, pixel_of(colour), channels);
    }
}
