// What the host draws for each image and kernels read from memory. In Rust these are `ops::Photo`
// and `ops::Crop`, which say what each field means; the build fails where the two differ.
#pragma once

struct Photo {
    float brightness, contrast, saturation, hue, sigma;
    unsigned grey, order;
};

struct Crop {
    unsigned top, left, side, flip;
};
