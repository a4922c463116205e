//! How a picture of any shape becomes a square, and its label map by the same geometry (nearest).
//!
//! * `Fit::Crop`: short side to S, centre crop S × S; pictures bilinear with antialias, as Pillow
//!   resizes. Source: PiCIE's `BaseTransform`, torchvision's `resize` and `crop`.
//! * `Fit::Pad`: scaled by a constant, then cut or padded around the centre; pictures bilinear
//!   without antialias, as OpenCV resizes. Source: IIC's `cocostuff.py` and `pad_and_or_crop`.

use fast_image_resize as fir;

use serde::{Deserialize, Serialize};

use super::IGNORE;
use super::decode::{LabelMap, Rgb};

/// How a picture becomes a square of side S.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// The short side is resized to S, what sticks out is cut.
    #[default]
    Crop,
    /// Both sides are multiplied by `scale`; what sticks out of S × S is cut, what is missing is
    /// black and has no class.
    Pad { scale: f64 },
}

/// The resized size of a W × H image and where the S × S crop lies in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Geometry {
    width: usize,
    height: usize,
    left: usize,
    top: usize,
}

/// Short side S, long side ⌊S · long / short⌋; offsets are half the rest, rounded half to even as
/// Python does. An image smaller than S grows by the same rule.
fn geometry(width: usize, height: usize, size: usize) -> Geometry {
    let short = width.min(height);
    let (w, h) = (size * width / short, size * height / short);
    let offset = |side: usize| ((side - size) as f64 / 2.0).round_ties_even() as usize;
    Geometry { width: w, height: h, left: offset(w), top: offset(h) }
}

/// One side of a picture under `Fit::Pad`: `len` pixels from `from` of the resized side go to `to`
/// of the square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    resized: usize,
    from: usize,
    to: usize,
    len: usize,
}

/// The resized side is rounded to nearest, ties to even, as `cv2.resize` does; pixel ⌊side/2⌋ comes
/// to ⌊S/2⌋, as IIC centres.
///
/// NOTE: `cv2.resize` steps by 1/scale between pixels, this by side/resized, as the picture's edges
/// ask for: less than half a resized pixel apart.
fn span(side: usize, scale: f64, size: usize) -> Span {
    let resized = ((side as f64 * scale).round_ties_even() as usize).max(1);
    let (from, to) =
        ((resized / 2).saturating_sub(size / 2), (size / 2).saturating_sub(resized / 2));
    Span { resized, from, to, len: (resized - from).min(size - to) }
}

/// One side of a picture on its square: point p of the one is point p · resized / side + shift of
/// the other.
#[derive(Clone, Copy, Debug)]
struct Axis {
    side: usize,
    resized: usize,
    shift: f64,
}

/// Where the points of a picture lie in its square. Pixel i reaches from i to i + 1.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    size: usize,
    x: Axis,
    y: Axis,
}

impl Placement {
    pub fn new(width: usize, height: usize, size: usize, fit: Fit) -> Self {
        let (x, y) = match fit {
            Fit::Crop => {
                let g = geometry(width, height, size);
                let axis =
                    |side, resized, from: usize| Axis { side, resized, shift: -(from as f64) };
                (axis(width, g.width, g.left), axis(height, g.height, g.top))
            }
            Fit::Pad { scale } => {
                let axis = |side| {
                    let Span { resized, from, to, .. } = span(side, scale, size);
                    Axis { side, resized, shift: to as f64 - from as f64 }
                };
                (axis(width), axis(height))
            }
        };
        Placement { size, x, y }
    }

    /// The pixel (x, y) of the square that a point of the picture falls into; None outside of it.
    pub fn to_square(&self, (x, y): (f64, f64)) -> Option<(usize, usize)> {
        let place = |axis: &Axis, at: f64| {
            let at = at * axis.resized as f64 / axis.side as f64 + axis.shift;
            (at >= 0.0 && at < self.size as f64).then_some(at as usize)
        };
        Some((place(&self.x, x)?, place(&self.y, y)?))
    }

    /// The point of the picture that a point of the square shows; None where it shows padding.
    pub fn to_picture(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        let place = |axis: &Axis, at: f64| {
            let at = (at - axis.shift) * axis.side as f64 / axis.resized as f64;
            (at >= 0.0 && at < axis.side as f64).then_some(at)
        };
        Some((place(&self.x, x)?, place(&self.y, y)?))
    }
}

/// u8 (H, W, 3) → `out`, u8 (S, S, 3).
pub fn image(image: &Rgb, size: usize, fit: Fit, out: &mut [u8]) {
    assert_eq!(out.len(), size * size * 3);
    // The crop as a window of the source, so that nothing outside it is resized.
    let window = |from: usize, len: usize, side: usize, resized: usize| {
        let scale = side as f64 / resized as f64;
        let start = from as f64 * scale;
        (start, (len as f64 * scale).min(side as f64 - start))
    };
    match fit {
        Fit::Crop => {
            let g = geometry(image.width, image.height, size);
            let (left, width) = window(g.left, size, image.width, g.width);
            let (top, height) = window(g.top, size, image.height, g.height);
            let smooth = fir::ResizeAlg::Convolution(fir::FilterType::Bilinear);
            resample(image, smooth, (left, top, width, height), (size, size), out);
        }
        Fit::Pad { scale } => {
            let (x, y) = (span(image.width, scale, size), span(image.height, scale, size));
            let (left, width) = window(x.from, x.len, image.width, x.resized);
            let (top, height) = window(y.from, y.len, image.height, y.resized);
            let mut part = vec![0; x.len * y.len * 3];
            let plain = fir::ResizeAlg::Interpolation(fir::FilterType::Bilinear);
            resample(image, plain, (left, top, width, height), (x.len, y.len), &mut part);
            out.fill(0);
            for (row, part) in
                out.chunks_exact_mut(3 * size).skip(y.to).zip(part.chunks_exact(3 * x.len))
            {
                row[3 * x.to..][..part.len()].copy_from_slice(part);
            }
        }
    }
}

/// u8 (H, W, 3) → u8 (height, width, 3), the whole picture, bilinear with antialias.
pub fn resize(image: &Rgb, width: usize, height: usize) -> Vec<u8> {
    let mut out = vec![0; width * height * 3];
    let smooth = fir::ResizeAlg::Convolution(fir::FilterType::Bilinear);
    resample(
        image,
        smooth,
        (0.0, 0.0, image.width as f64, image.height as f64),
        (width, height),
        &mut out,
    );
    out
}

/// The window (left, top, width, height) of a picture at another size.
fn resample(
    image: &Rgb,
    how: fir::ResizeAlg,
    (left, top, w, h): (f64, f64, f64, f64),
    (width, height): (usize, usize),
    out: &mut [u8],
) {
    let options = fir::ResizeOptions::new().resize_alg(how).crop(left, top, w, h);
    // Typed, because the untyped call compiles every pixel type there is.
    use fir::images::{TypedImage, TypedImageRef};
    let source = TypedImageRef::<fir::pixels::U8x3>::from_buffer(
        image.width as u32,
        image.height as u32,
        &image.pixels,
    )
    .expect("pixels are (H, W, 3)");
    let mut target = TypedImage::<fir::pixels::U8x3>::from_buffer(width as u32, height as u32, out)
        .expect("out is (height, width, 3)");
    fir::Resizer::new()
        .resize_typed(&source, &mut target, &options)
        .expect("the window lies inside the image");
}

/// u8 (H, W) → `out`, u8 (S, S); padding is `IGNORE`, so `map` holds classes or nothing is padded.
pub fn label(map: &LabelMap, size: usize, fit: Fit, out: &mut [u8]) {
    assert_eq!(out.len(), size * size);
    let (x, y) = match fit {
        Fit::Crop => {
            let g = geometry(map.width, map.height, size);
            let cut = |resized, from| Span { resized, from, to: 0, len: size };
            (cut(g.width, g.left), cut(g.height, g.top))
        }
        Fit::Pad { scale } => (span(map.width, scale, size), span(map.height, scale, size)),
    };
    out.fill(IGNORE);
    let columns = nearest(map.width, x.resized, x.from, x.len);
    let rows = nearest(map.height, y.resized, y.from, y.len);
    for (row, from) in out.chunks_exact_mut(size).skip(y.to).zip(rows) {
        let line = &map.ids[from * map.width..][..map.width];
        for (id, &column) in row[x.to..].iter_mut().zip(&columns) {
            *id = line[column];
        }
    }
}

/// The source index of each of `size` pixels from `from` on, when `side` pixels are resized to
/// `resized`.
///
/// NOTE: the position is summed step by step because Pillow does; a product rounds elsewhere and
/// picks other pixels at ties.
fn nearest(side: usize, resized: usize, from: usize, size: usize) -> Vec<usize> {
    let step = side as f64 / resized as f64;
    let mut at = step * 0.5;
    let mut index = Vec::with_capacity(size);
    for i in 0..from + size {
        if i >= from {
            index.push((at as usize).min(side - 1));
        }
        at += step;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::gradient;

    #[test]
    fn geometry_is_that_of_torchvision() {
        let g = |w, h, s| {
            let g = geometry(w, h, s);
            (g.width, g.height, g.left, g.top)
        };
        assert_eq!(g(640, 480, 320), (426, 320, 53, 0));
        assert_eq!(g(427, 640, 320), (320, 479, 0, 80)); // 479.6 is cut, 79.5 goes to the even 80
        assert_eq!(g(333, 500, 4), (4, 6, 0, 1));
        assert_eq!(g(70, 40, 4), (7, 4, 2, 0)); // 1.5 goes to 2
        assert_eq!(g(50, 40, 4), (5, 4, 0, 0)); // 0.5 goes to 0
        assert_eq!(g(20, 10, 64), (128, 64, 32, 0)); // smaller than the crop: it grows
        assert_eq!(g(64, 64, 64), (64, 64, 0, 0));
    }

    #[test]
    fn pictures_are_resized_as_pillow_does() {
        for (width, height, size, want) in PILLOW_IMAGES {
            let source = gradient(*width as u32, *height as u32);
            let source = Rgb { width: *width, height: *height, pixels: source.into_raw() };
            let mut out = vec![0; size * size * 3];
            image(&source, *size, Fit::Crop, &mut out);
            // 1 level: both round to 8 bits after each of two passes, with other fixed-point
            // weights.
            let worst = out.iter().zip(*want).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(
                worst <= 1 && out.len() == want.len(),
                "{width}x{height} to {size}: {worst} levels off"
            );
        }
    }

    #[test]
    fn label_maps_are_resized_as_pillow_does() {
        for (width, height, size, want) in PILLOW_LABELS {
            let map = LabelMap {
                width: *width,
                height: *height,
                ids: (0..width * height).map(|i| i as u8).collect(),
            };
            let mut out = vec![0; size * size];
            label(&map, *size, Fit::Crop, &mut out);
            assert_eq!(out, *want, "{width}x{height} to {size}");
        }
    }

    #[test]
    fn sides_are_rounded_as_cv2_does_and_centres_meet() {
        let s = |side, scale, size| {
            let s = span(side, scale, size);
            (s.resized, s.from, s.to, s.len)
        };
        assert_eq!(s(640, 0.33, 128), (211, 41, 0, 128)); // 211.2; 105 − 64
        assert_eq!(s(427, 0.33, 128), (141, 6, 0, 128)); // 140.91
        assert_eq!(s(333, 0.33, 128), (110, 0, 9, 110)); // 109.89; 64 − 55
        assert_eq!((s(5, 0.5, 8).0, s(7, 0.5, 8).0), (2, 4)); // 2.5 and 3.5
        assert_eq!(s(1, 0.1, 4), (1, 0, 2, 1)); // never nothing
        assert_eq!(s(128, 1.0, 128), (128, 0, 0, 128));
        assert_eq!(s(9, 1.0, 8), (9, 0, 0, 8)); // 4 comes to 4
        assert_eq!(s(7, 1.0, 8), (7, 0, 1, 7)); // 3 comes to 4
    }

    #[test]
    fn a_third_is_every_third_pixel_padded_where_it_is_short() {
        // Without antialias a third of the size is the middle pixel of each 3 × 3: 24 columns are
        // 8, cut to 6; 12 rows are 4, padded.
        let (w, h, size, fit) = (24, 12, 6, Fit::Pad { scale: 1.0 / 3.0 });
        let source = gradient(w as u32, h as u32);
        let picture = Rgb { width: w, height: h, pixels: source.clone().into_raw() };
        let map =
            LabelMap { width: w, height: h, ids: (0..h * w).map(|i| (i % 251) as u8).collect() };
        let (mut out, mut ids) = (vec![9; size * size * 3], vec![9; size * size]);
        image(&picture, size, fit, &mut out);
        label(&map, size, fit, &mut ids);
        for (y, x) in (0..size * size).map(|i| (i / size, i % size)) {
            let (got, id) = (&out[(y * size + x) * 3..][..3], ids[y * size + x]);
            if (1..5).contains(&y) {
                let (row, column) = (3 * (y - 1) + 1, 3 * (x + 1) + 1);
                assert_eq!(got, source.get_pixel(column as u32, row as u32).0, "{y} {x}");
                assert_eq!(id, ((row * w + column) % 251) as u8, "{y} {x}");
            } else {
                assert_eq!((got, id), ([0; 3].as_slice(), IGNORE), "{y} {x}");
            }
        }
    }

    #[test]
    fn points_lie_where_pixels_are_resized_to() {
        // Nearest-neighbour label maps know: pixel (x, y) of the square shows the pixel of the
        // picture that its middle lies in.
        for (w, h, size, fit) in [
            (20, 10, 6, Fit::Crop),
            (5, 13, 8, Fit::Crop),
            (24, 12, 6, Fit::Pad { scale: 1.0 / 3.0 }),
        ] {
            let map = LabelMap {
                width: w,
                height: h,
                ids: (0..w * h).map(|i| (i % 251) as u8).collect(),
            };
            let (mut ids, place) = (vec![0; size * size], Placement::new(w, h, size, fit));
            label(&map, size, fit, &mut ids);
            for (i, id) in ids.into_iter().enumerate() {
                let middle = ((i % size) as f64 + 0.5, (i / size) as f64 + 0.5);
                let Some((x, y)) = place.to_picture(middle) else {
                    assert_eq!(id, IGNORE, "{fit:?} {i}");
                    continue;
                };
                assert_eq!(usize::from(id), (y as usize * w + x as usize) % 251, "{fit:?} {i}");
                assert_eq!(place.to_square((x, y)), Some((i % size, i / size)), "{fit:?} {i}");
            }
        }
        let wide = Placement::new(20, 10, 6, Fit::Crop);
        assert_eq!((wide.to_square((4.5, 3.0)), wide.to_square((5.1, 0.0))), (None, Some((0, 0))));
        assert_eq!(
            (wide.to_square((14.9, 9.9)), wide.to_square((15.1, 9.9))),
            (Some((5, 5)), None)
        );
    }

    #[test]
    fn fits_have_names_in_files() {
        let text = |fit: Fit| serde_json::to_string(&fit).unwrap();
        assert_eq!(
            (text(Fit::Crop), text(Fit::Pad { scale: 0.33 })),
            ("\"crop\"".into(), "{\"pad\":{\"scale\":0.33}}".into())
        );
    }

    #[test]
    fn the_longest_picture_fits() {
        let source = Rgb { width: 3000, height: 1, pixels: vec![5; 9000] };
        let mut out = vec![0; 8 * 8 * 3];
        image(&source, 8, Fit::Crop, &mut out);
        assert!(out.iter().all(|&v| v == 5));
    }

    /// (W, H, S, u8 (S, S, 3)) by Pillow 13.0 and torchvision on `gradient(W, H)`.
    #[rustfmt::skip]
    const PILLOW_IMAGES: &[(usize, usize, usize, &[u8])] = &[
        (13, 9, 4, &[48, 139, 66, 133, 151, 98, 151, 164, 124, 73, 177, 75, 70, 152, 103, 155, 93, 132, 150, 103, 143, 95, 116, 133, 96, 116, 118, 178, 124, 148, 101, 137, 147, 121, 149, 130, 118, 124, 130, 172, 136, 155, 78, 149, 150, 143, 159, 108]),
        (5, 7, 4, &[13, 109, 42, 56, 115, 54, 100, 121, 65, 143, 127, 76, 26, 173, 51, 69, 179, 104, 113, 185, 157, 156, 191, 103, 42, 203, 62, 85, 141, 144, 129, 53, 123, 172, 59, 122, 58, 71, 72, 101, 77, 116, 145, 83, 117, 188, 89, 182]),
        (3, 4, 5, &[0, 90, 40, 15, 92, 40, 37, 95, 40, 59, 98, 40, 74, 100, 40, 6, 117, 40, 21, 119, 46, 43, 122, 55, 65, 125, 63, 80, 127, 69, 13, 152, 40, 28, 154, 54, 50, 157, 74, 72, 160, 94, 87, 162, 108, 20, 187, 40, 35, 189, 61, 57, 192, 93, 79, 195, 125, 94, 197, 146, 28, 223, 40, 43, 225, 69, 65, 228, 113, 87, 154, 156, 102, 105, 185]),
        (31, 17, 3, &[128, 138, 122, 125, 126, 122, 125, 129, 120, 129, 129, 121, 129, 126, 126, 126, 123, 120, 128, 134, 125, 126, 141, 130, 127, 128, 120]),
    ];
    /// (W, H, S, u8 (S, S)) likewise, nearest, on the map whose pixel i holds i mod 256.
    #[rustfmt::skip]
    const PILLOW_LABELS: &[(usize, usize, usize, &[u8])] = &[
        (13, 9, 4, &[14, 16, 19, 22, 40, 42, 45, 48, 66, 68, 71, 74, 92, 94, 97, 100]),
        (5, 7, 4, &[0, 1, 3, 4, 10, 11, 13, 14, 15, 16, 18, 19, 20, 21, 23, 24]),
        (3, 4, 5, &[0, 0, 1, 2, 2, 3, 3, 4, 5, 5, 3, 3, 4, 5, 5, 6, 6, 7, 8, 8, 6, 6, 7, 8, 8]),
        (20, 10, 6, &[5, 7, 9, 10, 12, 14, 45, 47, 49, 50, 52, 54, 85, 87, 89, 90, 92, 94, 105, 107, 109, 110, 112, 114, 145, 147, 149, 150, 152, 154, 185, 187, 189, 190, 192, 194]),
        (31, 47, 7, &[87, 91, 96, 100, 104, 109, 113, 242, 246, 251, 255, 3, 8, 12, 141, 145, 150, 154, 158, 163, 167, 9, 13, 18, 22, 26, 31, 35, 164, 168, 173, 177, 181, 186, 190, 63, 67, 72, 76, 80, 85, 89, 187, 191, 196, 200, 204, 209, 213]),
    ];
}
