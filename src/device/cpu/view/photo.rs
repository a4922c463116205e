//! Photometric steps on a row: three planes of colours in 0..1.
//!
//! Plain loops without branches or fused multiply-adds: they vectorise at any width, and round
//! alike at every width.

use crate::device::ops::Photo;

/// A photometric step with its strength. Steps that change nothing are left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    Brightness(f32),
    Contrast(f32),
    Saturation(f32),
    /// A turn in sextants of the colour circle, −3..3.
    Hue(f32),
    Grey,
}

/// The steps of a draw in the order in which they run.
pub fn steps(photo: &Photo) -> [Option<Step>; 5] {
    let jitter = |field: u32| match photo.order >> (2 * field) & 3 {
        0 => (photo.brightness != 1.0).then_some(Step::Brightness(photo.brightness)),
        1 => (photo.contrast != 1.0).then_some(Step::Contrast(photo.contrast)),
        2 => (photo.saturation != 1.0).then_some(Step::Saturation(photo.saturation)),
        _ => (photo.hue != 0.0).then_some(Step::Hue(6.0 * photo.hue)),
    };
    [jitter(0), jitter(1), jitter(2), jitter(3), (photo.grey != 0).then_some(Step::Grey)]
}

/// r, g, b = the three planes, in 0..1, of interleaved bytes.
#[inline(always)]
pub fn load([r, g, b]: [&mut [f32]; 3], pixels: &[u8]) {
    // NOTE: whole blocks by value become byte shuffles; a loop over pixels, like that of the tail,
    // stays scalar.
    const LANES: usize = 16;
    let level = |v: u8| f32::from(v) * (1.0 / 255.0);
    let ((r, r_tail), (g, g_tail), (b, b_tail)) =
        (r.as_chunks_mut::<LANES>(), g.as_chunks_mut::<LANES>(), b.as_chunks_mut::<LANES>());
    let (pixels, tail) = pixels.as_chunks::<{ 3 * LANES }>();
    for (((r, g), b), pixels) in r.iter_mut().zip(g).zip(b).zip(pixels) {
        let pixels = *pixels;
        *r = std::array::from_fn(|l| level(pixels[3 * l]));
        *g = std::array::from_fn(|l| level(pixels[3 * l + 1]));
        *b = std::array::from_fn(|l| level(pixels[3 * l + 2]));
    }
    for (((r, g), b), pixel) in
        r_tail.iter_mut().zip(g_tail).zip(b_tail).zip(tail.as_chunks::<3>().0)
    {
        [*r, *g, *b] = pixel.map(level);
    }
}

/// Applies one step in place; `mean` is the mean grey of the image, which contrast alone reads.
#[inline(always)]
pub fn apply(step: Step, planes: [&mut [f32]; 3], mean: f32) {
    match step {
        Step::Brightness(b) => each(planes, |p| p.map(|v| clamp(v * b))),
        Step::Contrast(c) => each(planes, |p| p.map(|v| clamp(mean + (v - mean) * c))),
        Step::Saturation(s) => each(planes, |p| {
            let y = grey(p);
            p.map(|v| clamp(y + (v - y) * s))
        }),
        Step::Hue(h) => each(planes, |p| rotate(p, h)),
        Step::Grey => each(planes, |p| [grey(p); 3]),
    }
}

/// The sum of the grey values of a row, in an order that does not depend on the vector width.
#[inline(always)]
pub fn grey_sum([r, g, b]: [&mut [f32]; 3]) -> f64 {
    const LANES: usize = 16;
    let mut sums = [0.0f32; LANES];
    let ((r, r_tail), (g, g_tail), (b, b_tail)) =
        (r.as_chunks::<LANES>(), g.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for ((r, g), b) in r.iter().zip(g).zip(b) {
        for l in 0..LANES {
            sums[l] += grey([r[l], g[l], b[l]]);
        }
    }
    for (l, ((&r, &g), &b)) in r_tail.iter().zip(g_tail).zip(b_tail).enumerate() {
        sums[l] += grey([r, g, b]);
    }
    sums.iter().map(|&v| f64::from(v)).sum()
}

/// Replaces the colour of each pixel by `f` of it.
#[inline(always)]
fn each([r, g, b]: [&mut [f32]; 3], f: impl Fn([f32; 3]) -> [f32; 3]) {
    for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
        [*r, *g, *b] = f([*r, *g, *b]);
    }
}

/// The grey value of a colour.
#[inline(always)]
pub fn grey([r, g, b]: [f32; 3]) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}

// NOTE: f32::max and f32::min order NaN, which costs two more instructions each; colours are never
// NaN.
#[inline(always)]
fn max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline(always)]
fn min(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

#[inline(always)]
fn clamp(v: f32) -> f32 {
    min(max(v, 0.0), 1.0)
}

/// Turns the hue by `turn` sextants at constant HSV value and saturation.
///
/// With hue h in sextants, a channel is V − VS·clamp(min(k, 4 − k)), k = (h + 5, 3, 1) mod 6 for
/// red, green, blue: the six cases of the textbook in one formula.
#[inline(always)]
fn rotate([r, g, b]: [f32; 3], turn: f32) -> [f32; 3] {
    let top = max(max(r, g), b);
    let span = top - min(min(r, g), b);
    let scale = 1.0 / if span > 0.0 { span } else { 1.0 };
    let hue = if top == r {
        (g - b) * scale
    } else if top == g {
        2.0 + (b - r) * scale
    } else {
        4.0 + (r - g) * scale
    };
    // −1..5 and a turn of −3..3 are one wrap away from 0..6.
    let hue = hue + turn;
    let hue = if hue < 0.0 { hue + 6.0 } else { hue };
    let hue = if hue >= 6.0 { hue - 6.0 } else { hue };
    [5.0, 3.0, 1.0].map(|n| {
        let k = hue + n;
        let k = if k >= 6.0 { k - 6.0 } else { k };
        top - span * clamp(min(k, 4.0 - k))
    })
}
