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

/// How a picture of any shape becomes a square of side S.
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

/// The square that every picture of a set becomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Square {
    /// S, its side in pixels.
    pub side: usize,
    pub fit: Fit,
}

impl Square {
    pub fn new(side: usize, fit: Fit) -> Self {
        Square { side, fit }
    }

    /// Both sides of a picture of `width` × `height` pixels.
    fn spans(&self, width: usize, height: usize) -> [Span; 2] {
        let short = width.min(height);
        [width, height].map(|side| match self.fit {
            Fit::Crop => Span::cropped(side, short, self.side),
            Fit::Pad { scale } => Span::scaled(side, scale, self.side),
        })
    }
}

/// One side of a picture on its square: it is resized from `side` to `resized` pixels, of which
/// `len` pixels from `from` on go to `to` of the square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    side: usize,
    resized: usize,
    from: usize,
    to: usize,
    len: usize,
}

impl Span {
    /// The side under [`Fit::Crop`]: the short side becomes S, this one ⌊S · side / short⌋; offsets
    /// are half the rest, rounded half to even as Python does. A picture smaller than S grows by
    /// the same rule.
    fn cropped(side: usize, short: usize, size: usize) -> Self {
        let resized = size * side / short;
        let from = ((resized - size) as f64 / 2.0).round_ties_even() as usize;
        Span { side, resized, from, to: 0, len: size }
    }

    /// The side under [`Fit::Pad`]: rounded to nearest, ties to even, as `cv2.resize` does; pixel
    /// ⌊side/2⌋ comes to ⌊S/2⌋, as IIC centres.
    ///
    /// NOTE: `cv2.resize` steps by 1/scale between pixels, this by side/resized, as the picture's
    /// edges ask for: less than half a resized pixel apart.
    fn scaled(side: usize, scale: f64, size: usize) -> Self {
        let resized = ((side as f64 * scale).round_ties_even() as usize).max(1);
        let (from, to) =
            ((resized / 2).saturating_sub(size / 2), (size / 2).saturating_sub(resized / 2));
        Span { side, resized, from, to, len: (resized - from).min(size - to) }
    }

    /// The whole side, resized to `resized` pixels.
    fn whole(side: usize, resized: usize) -> Self {
        Span { side, resized, from: 0, to: 0, len: resized }
    }

    /// The start and length of the part of the picture's side that is shown, so that nothing else
    /// is resized.
    fn window(&self) -> (f64, f64) {
        let scale = self.side as f64 / self.resized as f64;
        let start = self.from as f64 * scale;
        (start, (self.len as f64 * scale).min(self.side as f64 - start))
    }

    /// How far a point of the resized side moves to its place on the square.
    fn shift(&self) -> f64 {
        self.to as f64 - self.from as f64
    }

    /// The index in the picture of each pixel that is shown, by nearest neighbor.
    ///
    /// NOTE: the position is summed step by step because Pillow does; a product rounds elsewhere
    /// and picks other pixels at ties.
    fn nearest(&self) -> Vec<usize> {
        let step = self.side as f64 / self.resized as f64;
        let mut at = step * 0.5;
        let mut index = Vec::with_capacity(self.len);
        for i in 0..self.from + self.len {
            if i >= self.from {
                index.push((at as usize).min(self.side - 1));
            }
            at += step;
        }
        index
    }
}

/// Where the points of a picture lie in its square. Pixel i reaches from i to i + 1.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    size: usize,
    x: Span,
    y: Span,
}

impl Placement {
    /// The placement of a picture of `width` × `height` pixels.
    pub fn new(width: usize, height: usize, square: Square) -> Self {
        let [x, y] = square.spans(width, height);
        Placement { size: square.side, x, y }
    }

    /// The pixel (x, y) of the square that a point of the picture falls into; None outside of it.
    pub fn to_square(&self, (x, y): (f64, f64)) -> Option<(usize, usize)> {
        let place = |span: &Span, at: f64| {
            let at = at * span.resized as f64 / span.side as f64 + span.shift();
            (at >= 0.0 && at < self.size as f64).then_some(at as usize)
        };
        Some((place(&self.x, x)?, place(&self.y, y)?))
    }

    /// The point of the picture that a point of the square shows; None where it shows padding.
    pub fn to_picture(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        let place = |span: &Span, at: f64| {
            let at = (at - span.shift()) * span.side as f64 / span.resized as f64;
            (at >= 0.0 && at < span.side as f64).then_some(at)
        };
        Some((place(&self.x, x)?, place(&self.y, y)?))
    }
}

/// Turns a picture, u8 (H, W, 3), into its square, `out` u8 (S, S, 3).
pub fn image(image: &Rgb, square: Square, out: &mut [u8]) {
    let size = square.side;
    assert_eq!(out.len(), size * size * 3);
    let [x, y] = square.spans(image.width, image.height);
    match square.fit {
        Fit::Crop => {
            let smooth = fir::ResizeAlg::Convolution(fir::FilterType::Bilinear);
            resample(image, smooth, &x, &y, out);
        }
        Fit::Pad { .. } => {
            let mut part = vec![0; x.len * y.len * 3];
            let plain = fir::ResizeAlg::Interpolation(fir::FilterType::Bilinear);
            resample(image, plain, &x, &y, &mut part);
            out.fill(0);
            let rows = out.chunks_exact_mut(3 * size).skip(y.to);
            for (row, part) in rows.zip(part.chunks_exact(3 * x.len)) {
                row[3 * x.to..][..part.len()].copy_from_slice(part);
            }
        }
    }
}

/// Resizes a whole picture, u8 (H, W, 3), to u8 (height, width, 3), bilinear with antialias.
pub fn resize(image: &Rgb, width: usize, height: usize) -> Vec<u8> {
    let mut out = vec![0; width * height * 3];
    let smooth = fir::ResizeAlg::Convolution(fir::FilterType::Bilinear);
    let (x, y) = (Span::whole(image.width, width), Span::whole(image.height, height));
    resample(image, smooth, &x, &y, &mut out);
    out
}

/// Writes the part of a picture that `x` and `y` show to `out`, u8 (`y.len`, `x.len`, 3).
fn resample(image: &Rgb, how: fir::ResizeAlg, x: &Span, y: &Span, out: &mut [u8]) {
    let ((left, width), (top, height)) = (x.window(), y.window());
    let options = fir::ResizeOptions::new().resize_alg(how).crop(left, top, width, height);
    // Typed, because the untyped call compiles every pixel type there is.
    use fir::images::{TypedImage, TypedImageRef};
    let source = TypedImageRef::<fir::pixels::U8x3>::from_buffer(
        image.width as u32,
        image.height as u32,
        &image.pixels,
    )
    .expect("pixels are (H, W, 3)");
    let mut target = TypedImage::<fir::pixels::U8x3>::from_buffer(x.len as u32, y.len as u32, out)
        .expect("out is (height, width, 3)");
    fir::Resizer::new()
        .resize_typed(&source, &mut target, &options)
        .expect("the window lies inside the image");
}

/// Turns a label map, u8 (H, W), into its square, `out` u8 (S, S). Padding is `IGNORE`, so `map`
/// holds classes already, or nothing is padded.
pub fn label(map: &LabelMap, square: Square, out: &mut [u8]) {
    assert_eq!(out.len(), square.side * square.side);
    let [x, y] = square.spans(map.width, map.height);
    out.fill(IGNORE);
    let columns = x.nearest();
    for (row, from) in out.chunks_exact_mut(square.side).skip(y.to).zip(y.nearest()) {
        let line = &map.ids[from * map.width..][..map.width];
        for (id, &column) in row[x.to..].iter_mut().zip(&columns) {
            *id = line[column];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometry_is_that_of_torchvision() {
        let g = |w, h, s| {
            let [x, y] = Square::new(s, Fit::Crop).spans(w, h);
            assert_eq!((x.to, x.len, y.to, y.len), (0, s, 0, s));
            (x.resized, y.resized, x.from, y.from)
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
    fn sides_are_rounded_as_cv2_does_and_centres_meet() {
        let s = |side, scale, size| {
            let s = Span::scaled(side, scale, size);
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
}
