// The grey of images whose contrast changes, at that point of their photometric steps, as PARTS
// partial sums of an image.
//
// A thread takes four pixels as three words; a byte becomes a number by a permutation, which writes
// it below the exponent of 2²³, and a multiply-add. 3·sh·sw bytes are read: for 128 images of 640²
// of which four in five change their contrast 126 MB, 42 µs at 3 TB/s. A warp's 128 pixels take 75
// instructions, and before the contrast 24 for brightness, 36 for saturation and 117 for the hue:
// 35 µs of an H100's four a cycle where brightness alone comes first, 65 µs in a random order.
#include "view_colour.cuh"

// partial (n, PARTS) = Σ grey before the contrast over a share of the image's pixels; untouched
// where contrast changes nothing. Blocks (PARTS, n).
KERNEL(view_grey, THREADS)(float* __restrict__ partial, const unsigned char* __restrict__ images,
                           const unsigned* __restrict__ index, const Photo* __restrict__ photo,
                           int sh, int sw) {
    SHARED(float, sums, WARPS);
    SHARED(Steps, steps, 1);
    if (photo[blockIdx.y].contrast == 1) return;
    if (threadIdx.x == 0) list_steps(*steps, photo[blockIdx.y], nullptr);
    __syncthreads();
    const int pixels = sh * sw;
    const unsigned char* const image = images + size_t(index[blockIdx.y]) * pixels * 3;
    const bool aligned = pixels % 4 == 0;
    float sum = 0;
    for (int quad = blockIdx.x * THREADS + threadIdx.x; quad < pixels / 4;
         quad += PARTS * THREADS) {
        const unsigned char* const from = image + size_t(quad) * 12;
        Colour c[4];
        if (aligned) {
            const unsigned* const words = reinterpret_cast<const unsigned*>(from);
            colours(c, {words[0], words[1], words[2]});
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) c[i] = colour(from + 3 * i);
        }
        develop(c, *steps);
        sum += (grey(c[0]) + grey(c[1])) + (grey(c[2]) + grey(c[3]));
    }
    // The last pixels of an image whose pixels are no multiple of 4.
    if (blockIdx.x == 0 && threadIdx.x < pixels % 4) {
        Colour c[1] = {colour(image + size_t(pixels / 4 * 4 + threadIdx.x) * 3)};
        develop(c, *steps);
        sum += grey(c[0]);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        float total = 0;
        for (int i = 0; i < WARPS; ++i) total += sums[i];
        partial[blockIdx.y * PARTS + blockIdx.x] = total;
    }
}
