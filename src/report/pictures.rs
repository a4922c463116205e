//! Label maps and overlays as PNG files.

use std::path::Path;

use image::{Rgb as Pixel, RgbImage};
use png::{BitDepth, ColorType, Encoder, EncodingError, Filter};

use crate::base::fs::write_atomic;
use crate::base::{Error, Result};
use crate::data::MARK;
use crate::report::palette::Colour;
use crate::report::text::mix;

/// The label of a pixel without a class: one that nobody labelled, or that is in a cluster without
/// a class.
pub const NONE: u16 = u16::MAX;

/// The opacity of a class colour over the image, where 255 is opaque.
const OPACITY: u32 = 150;

/// The samples of a picture.
const RGB: (ColorType, BitDepth) = (ColorType::Rgb, BitDepth::Eight);

/// Writes the label map `labels` (H, W) as a grey PNG whose values *are* the labels: 8 bits where
/// all are below 255, 16 bits otherwise, [`NONE`] being 255 or 65535. Label maps of COCO-Stuff look
/// the same.
pub fn write_labels(path: &Path, labels: &[u16], w: usize, h: usize) -> Result<()> {
    check("label picture", "labels", labels.len(), w * h)?;
    if labels.iter().all(|&l| l < 255 || l == NONE) {
        let bytes: Vec<u8> = labels.iter().map(|&l| l.min(255) as u8).collect();
        write_png(path, &bytes, w, h, (ColorType::Grayscale, BitDepth::Eight))
    } else {
        let bytes: Vec<u8> = labels.iter().flat_map(|l| l.to_be_bytes()).collect();
        write_png(path, &bytes, w, h, (ColorType::Grayscale, BitDepth::Sixteen))
    }
}

/// Writes a picture as a PNG.
pub fn write_rgb(path: &Path, picture: &RgbImage) -> Result<()> {
    let (w, h) = (picture.width() as usize, picture.height() as usize);
    write_png(path, picture.as_raw(), w, h, RGB)
}

/// Draws `image` with each pixel tinted by its class of `labels` (H, W), regions outlined in their
/// full colour against a dark line; pixels of [`NONE`] are grey and dim. Classes beyond `palette`
/// start it anew.
pub fn overlay(image: &RgbImage, labels: &[u16], palette: &[Colour]) -> Result<RgbImage> {
    let (w, h) = (image.width() as usize, image.height() as usize);
    check("overlay", "labels", labels.len(), w * h)?;
    let tint = |x: u32, y: u32| {
        let i = y as usize * w + x as usize;
        let (label, Pixel(pixel)) = (labels[i], *image.get_pixel(x, y));
        // The two sides of an edge: the pixel after it is dark, the one before it has the full
        // colour.
        let after = (x > 0 && labels[i - 1] != label) || (y > 0 && labels[i - w] != label);
        let before = ((x as usize) + 1 < w && labels[i + 1] != label)
            || ((y as usize) + 1 < h && labels[i + w] != label);
        Pixel(match label {
            _ if after => mix(pixel, [0; 3], 200),
            NONE => [(pixel.iter().map(|&v| u32::from(v)).sum::<u32>() / 6) as u8; 3],
            _ => mix(
                pixel,
                palette[usize::from(label) % palette.len()],
                if before { 255 } else { OPACITY },
            ),
        })
    };
    Ok(RgbImage::from_fn(image.width(), image.height(), tint))
}

/// Turns each pixel's cluster into its class, [`NONE`] where it has none; `class_of` (K) comes from
/// a vote or a matching.
pub fn relabel<P: Copy + Into<usize>>(clusters: &[P], class_of: &[Option<usize>]) -> Vec<u16> {
    clusters.iter().map(|&k| class_of[k.into()].map_or(NONE, |c| c as u16)).collect()
}

/// Refuses a buffer of `got` elements where `want` are needed.
pub(super) fn check(op: &'static str, what: &'static str, got: usize, want: usize) -> Result<()> {
    if got == want { Ok(()) } else { Err(Error::Shape { op, what, got, want }) }
}

/// A picture as the bytes of a PNG.
pub(super) fn png(picture: &RgbImage) -> Result<Vec<u8>, EncodingError> {
    let (w, h) = picture.dimensions();
    encoded(picture.as_raw(), w, h, RGB)
}

/// A PNG that says of itself who wrote it, so that nobody learns from it as if it were a photo.
/// `bytes` are samples as PNG has them.
fn encoded(
    bytes: &[u8],
    w: u32,
    h: u32,
    kind: (ColorType, BitDepth),
) -> Result<Vec<u8>, EncodingError> {
    let mut png = Vec::new();
    let mut encoder = Encoder::new(&mut png, w, h);
    encoder.set_color(kind.0);
    encoder.set_depth(kind.1);
    encoder.set_filter(Filter::Adaptive);
    encoder.add_text_chunk(MARK.0.into(), MARK.1.into())?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(bytes)?;
    writer.finish()?;
    Ok(png)
}

fn write_png(
    path: &Path,
    bytes: &[u8],
    w: usize,
    h: usize,
    kind: (ColorType, BitDepth),
) -> Result<()> {
    let png = encoded(bytes, w as u32, h as u32, kind);
    let png = png.map_err(|e| Error::file(path, e, "choose a smaller --size"))?;
    write_atomic(path, |out| out.write_all(&png))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_pictures_read_back_as_the_labels() {
        let dir = tempfile::tempdir().unwrap();
        for (labels, depth) in
            [(vec![0, 7, 254, NONE, 3, 1], 8), (vec![0, 255, 300, NONE, 3, 1], 16)]
        {
            let path = dir.path().join(format!("{depth}.png"));
            write_labels(&path, &labels, 3, 2).unwrap();
            let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
            let reader = png::Decoder::new(file).read_info().unwrap();
            let text = &reader.info().uncompressed_latin1_text[0];
            assert_eq!((&*text.keyword, &*text.text), MARK);
            let back = image::open(&path).unwrap();
            assert_eq!((back.width(), back.height(), back.color().bits_per_pixel()), (3, 2, depth));
            let values: Vec<u16> = match depth {
                8 => back
                    .as_luma8()
                    .unwrap()
                    .iter()
                    .map(|&v| if v == 255 { NONE } else { v.into() })
                    .collect(),
                _ => back.as_luma16().unwrap().to_vec(),
            };
            assert_eq!(values, labels);
        }
        assert!(write_labels(&dir.path().join("x.png"), &[0; 5], 3, 2).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn overlays_tint_inside_and_draw_edges_between() {
        let image = RgbImage::from_pixel(6, 3, Pixel([100, 100, 100]));
        let labels = [0, 0, 0, 1, 1, NONE].repeat(3);
        let palette = [[200, 0, 0], [0, 200, 0]];
        let picture = overlay(&image, &labels, &palette).unwrap();
        let at = |x| picture.get_pixel(x, 1).0;
        assert_eq!(at(0), mix([100; 3], palette[0], OPACITY));
        assert_eq!((at(2), at(3), at(4)), (palette[0], mix([100; 3], [0; 3], 200), palette[1]));
        assert_eq!(at(5), mix([100; 3], [0; 3], 200));
        let none = overlay(&image, &[NONE; 18], &palette).unwrap();
        assert_eq!(none.get_pixel(0, 0).0, [50; 3]);
        assert!(overlay(&image, &labels[1..], &palette).is_err());
    }

    #[test]
    fn clusters_take_the_colour_of_their_class() {
        assert_eq!(relabel(&[2u8, 0, 1, 2], &[Some(5), None, Some(0)]), [0, 5, NONE, 0]);
    }
}
