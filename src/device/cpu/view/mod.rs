//! Views on the CPU: an image is one piece of work, and lies in the scratch of the thread that
//! renders it.
//!
//! u8 → planes of f32 → photometric steps row by row → vertical sums → horizontal sums → normalised
//! pixels. Only the window that the crop reads is touched, except that contrast needs the mean of
//! the whole image. Blur and resize are one weighted sum an axis ([`taps`]).

mod photo;
mod sobel;
mod taps;

use std::ops::Range;

use crate::base::Result;
use crate::device::cpu::Cpu;
use crate::device::cpu::share::{share, workers};
use crate::device::ops::view::{MEAN, STD, ViewOps};
use crate::device::ops::{Crop, Passed, Photo, ViewRender, ViewSobel, ViewSpec};
use photo::Step;
use taps::{Bank, Resize};

/// f32 of scratch that a thread renders in: planes, a row of planes, a row of pixels, the kernel of
/// the blur, and a bank of weights for each axis.
fn scratch_len(spec: &ViewSpec) -> usize {
    let ViewSpec { sh, sw, h, w, .. } = *spec;
    let rows = 3 * sh * sw + 3 * sw + 4 * sw;
    let render = rows + sh.max(sw) + 1 + h * (sh + 1) + w * (sw + 1);
    // Whole cache lines, so that threads do not share one.
    render.max(sobel::scratch(w)).next_multiple_of(16)
}

impl ViewOps for Cpu {
    fn plan_view(&mut self, spec: ViewSpec) -> Result<usize> {
        self.ask_scratch(scratch_len(&spec) * workers());
        Ok(0)
    }

    fn view_render(&mut self, a: Passed<ViewRender>) -> Result<()> {
        let spec = *a.spec();
        let bytes = spec.sh * spec.sw * 3;
        let (simd, scratch) = (self.simd, self.scratch(scratch_len(&spec) * workers()));
        let kept = a.kept.map(|kept| (kept.pictures, kept.places));
        let (x, kept, images, index, photo, crops, scratch) =
            self.get((a.x, kept, a.images, a.index, a.photo, a.crops, scratch));
        let (photo, crops) = (photo.as_deref(), crops.as_deref());
        let outs = x.chunks_exact_mut(spec.h * spec.w * spec.channels).enumerate();
        share(outs, scratch, |(i, out), scratch| {
            let image = &images[index[i] as usize * bytes..][..bytes];
            let photo = photo.map_or(Photo::NONE, |p| p[i]);
            let crop = crops.map(|c| c[i]);
            simd.dispatch(Render { spec, out, image, photo, crop, scratch });
        });
        if let Some((pictures, places)) = kept {
            let row = spec.h * spec.w * 3;
            for (x, &place) in x.chunks_exact(spec.h * spec.w * spec.channels).zip(&*places) {
                keep(&mut pictures[place as usize * row..][..row], x, spec.channels);
            }
        }
        Ok(())
    }

    fn view_sobel(&mut self, a: Passed<ViewSobel>) -> Result<()> {
        let spec = *a.spec();
        let ViewSpec { h, w, .. } = spec;
        let (simd, scratch) = (self.simd, self.scratch(scratch_len(&spec) * workers()));
        let (x, scratch) = self.get((a.x, scratch));
        let images = x.as_chunks_mut::<8>().0.chunks_exact_mut(h * w);
        share(images, scratch, |image, scratch| sobel::sobel(simd, image, w, scratch));
        Ok(())
    }
}

/// Renders one image.
///
/// NOTE: not a closure. `dispatch` calls a closure that could run twice through a shim that is
/// never inlined, so all of its code would be compiled for SSE2.
struct Render<'a> {
    spec: ViewSpec,
    out: &'a mut [f32],
    image: &'a [u8],
    photo: Photo,
    crop: Option<Crop>,
    scratch: &'a mut [f32],
}

impl pulp::WithSimd for Render<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Render { spec, out, image, photo, crop, mut scratch } = self;
        let ViewSpec { sh, sw, h, w, .. } = spec;
        let mut take = |len| scratch.split_off_mut(..len).expect("the plan asked for this much");
        let (planes, sums, pixels) = (take(3 * sh * sw), take(3 * sw), take(4 * sw));
        let (kernel, row_start, row_weight) = (take(sh.max(sw) + 1), take(h), take(h * sh));
        let (col_start, col_weight) = (take(w), take(w * sw));

        let (rows, cols) = resizes(spec, crop);
        let kernel = taps::gaussian(photo.sigma, kernel);
        let rows = rows.bank(kernel, bytemuck::cast_slice_mut(row_start), row_weight);
        let cols = cols.bank(kernel, bytemuck::cast_slice_mut(col_start), col_weight);
        develop(planes, image, photo, (sh, sw), (rows.span(), cols.span()));
        resample(out, planes, (sw, w, spec.channels), &rows, &cols, sums, pixels);
    }
}

/// How the rows and the columns of a view come from those of the stored image.
fn resizes(spec: ViewSpec, crop: Option<Crop>) -> (Resize, Resize) {
    let ViewSpec { sh, sw, h, w, .. } = spec;
    let whole = |len, out| Resize { len, out, start: 0, side: len, antialias: true, flip: false };
    match crop {
        None => (whole(sh, h), whole(sw, w)),
        Some(Crop { top, left, side, flip }) => {
            let window = Resize { side: side as usize, antialias: false, ..whole(0, 0) };
            (
                Resize { len: sh, out: h, start: top as usize, ..window },
                Resize { len: sw, out: w, start: left as usize, flip: flip != 0, ..window },
            )
        }
    }
}

/// planes (sh, 3, sw) = the image after the photometric draw. Elements outside of the window `rows`
/// × `cols` are not defined.
#[inline(always)]
fn develop(
    planes: &mut [f32],
    image: &[u8],
    photo: Photo,
    (sh, sw): (usize, usize),
    (rows, cols): (Range<usize>, Range<usize>),
) {
    let steps = photo::steps(&photo);
    let contrast = steps.iter().position(|s| matches!(s, Some(Step::Contrast(_))));
    let (before, after) = steps.split_at(contrast.unwrap_or(steps.len()));
    let (all_rows, all_cols) =
        if contrast.is_some() { (0..sh, 0..sw) } else { (rows.clone(), cols.clone()) };

    let mut sum = 0.0;
    for y in all_rows {
        let row = &mut planes[y * 3 * sw..][..3 * sw];
        photo::load(
            channels(row, sw, &all_cols),
            &image[(y * sw + all_cols.start) * 3..(y * sw + all_cols.end) * 3],
        );
        for step in before.iter().flatten() {
            photo::apply(*step, channels(row, sw, &all_cols), 0.0);
        }
        if contrast.is_some() {
            sum += photo::grey_sum(channels(row, sw, &all_cols));
        }
    }
    let mean = (sum / (sh * sw) as f64) as f32;
    if contrast.is_some() {
        for row in planes.chunks_exact_mut(3 * sw).take(rows.end).skip(rows.start) {
            for step in after.iter().flatten() {
                photo::apply(*step, channels(row, sw, &cols), mean);
            }
        }
    }
}

/// The red, green and blue planes of a row, columns `cols` of each.
#[inline(always)]
fn channels<'a>(row: &'a mut [f32], sw: usize, cols: &Range<usize>) -> [&'a mut [f32]; 3] {
    let (r, rest) = row.split_at_mut(sw);
    let (g, b) = rest.split_at_mut(sw);
    [r, g, b].map(|plane| &mut plane[cols.clone()])
}

/// out (h, w, channels) = the normalised pixels of weighted sums over rows, then over columns.
/// `sums` and `pixels` are scratch for a row.
#[inline(always)]
fn resample(
    out: &mut [f32],
    planes: &[f32],
    (sw, w, channels): (usize, usize, usize),
    rows: &Bank,
    cols: &Bank,
    sums: &mut [f32],
    pixels: &mut [f32],
) {
    let span = cols.span();
    let wide = span.len();
    let (sums, pixels) = (&mut sums[..3 * wide], &mut pixels.as_chunks_mut::<4>().0[..wide]);
    for (o, out) in out.chunks_exact_mut(channels * w).enumerate() {
        let (top, weights) = rows.at(o);
        sums.fill(0.0);
        for (row, &weight) in planes[top * 3 * sw..].chunks_exact(3 * sw).zip(weights) {
            for (sum, plane) in sums.chunks_exact_mut(wide).zip(row.chunks_exact(sw)) {
                for (s, v) in sum.iter_mut().zip(&plane[span.clone()]) {
                    *s += weight * v;
                }
            }
        }
        let (r, rest) = sums.split_at(wide);
        let (g, b) = rest.split_at(wide);
        for (((pixel, &r), &g), &b) in pixels.iter_mut().zip(r).zip(g).zip(b) {
            *pixel = [r, g, b, 0.0];
        }
        for (x, out) in out.as_chunks_mut::<4>().0.chunks_exact_mut(channels / 4).enumerate() {
            let (left, weights) = cols.at(x);
            let mut sum = [0.0; 4];
            for (pixel, &weight) in pixels[left - span.start..].iter().zip(weights) {
                for c in 0..4 {
                    sum[c] += weight * pixel[c];
                }
            }
            out[0] = std::array::from_fn(|c| (sum[c] - SHIFT[c]) * SCALE[c]);
            out[1..].fill([0.0; 4]);
        }
    }
}

/// picture (h, w, 3) = the colours of x (h, w, channels) as levels.
fn keep(picture: &mut [u8], x: &[f32], channels: usize) {
    for (levels, x) in picture.as_chunks_mut::<3>().0.iter_mut().zip(x.chunks_exact(channels)) {
        *levels = std::array::from_fn(|c| ((x[c] * STD[c] + MEAN[c]) * 255.0).round() as u8);
    }
}

/// What is subtracted from the channels of a pixel, and then multiplied by; the fourth stays 0.
const SHIFT: [f32; 4] = [MEAN[0], MEAN[1], MEAN[2], 0.0];
const SCALE: [f32; 4] = [1.0 / STD[0], 1.0 / STD[1], 1.0 / STD[2], 0.0];
