//! The Sobel gradient of the grey picture, beside the colours that it comes from.

use super::photo;
use crate::device::cpu::wide::wide;
use crate::device::ops::view::{MEAN, STD};

/// f32 of scratch for rows of `w` pixels: three rows of grey with a zero at each end.
pub fn scratch(w: usize) -> usize {
    3 * (w + 2)
}

/// to = the grey values in 0..1 of a row of normalised pixels.
#[inline(always)]
fn grey(to: &mut [f32], row: &[[f32; 8]]) {
    for (to, pixel) in to.iter_mut().zip(row) {
        *to = photo::grey(std::array::from_fn(|c| pixel[c] * STD[c] + MEAN[c]));
    }
}

/// Writes channels 3 and 4 of each pixel of an image of width `w`: the gradient along x and along
/// y.
pub fn sobel(simd: pulp::Arch, image: &mut [[f32; 8]], w: usize, scratch: &mut [f32]) {
    let rows = &mut scratch[..self::scratch(w)];
    let h = image.len() / w;
    wide(
        simd,
        #[inline(always)]
        || {
            // Zeros around the image: above its first row, and at the ends of all.
            rows.fill(0.0);
            let (above, rest) = rows.split_at_mut(w + 2);
            let (here, below) = rest.split_at_mut(w + 2);
            let (mut above, mut here, mut below) = (above, here, below);
            grey(&mut here[1..=w], &image[..w]);
            for y in 0..h {
                match image.get((y + 1) * w..(y + 2) * w) {
                    Some(next) => grey(&mut below[1..=w], next),
                    None => below.fill(0.0),
                }
                for (x, pixel) in image[y * w..][..w].iter_mut().enumerate() {
                    let (a, b, c) = (&above[x..x + 3], &here[x..x + 3], &below[x..x + 3]);
                    pixel[3] = a[0] - a[2] + 2.0 * (b[0] - b[2]) + c[0] - c[2];
                    pixel[4] = a[0] - c[0] + 2.0 * (a[1] - c[1]) + a[2] - c[2];
                }
                (above, here, below) = (here, below, above);
            }
        },
    );
}
