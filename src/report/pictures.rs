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

/// The samples of a picture that are places in a palette.
const INDEXED: (ColorType, BitDepth) = (ColorType::Indexed, BitDepth::Eight);

/// Writes the label map `labels` (H, W) of clusters with these `colours` (K) as a PNG whose values
/// *are* the labels. Up to 255 clusters have 8 bits and the colours as their palette, so that any
/// viewer shows them; more have 16 bits and are grey.
pub fn write_labels(
    path: &Path,
    labels: &[u16],
    w: usize,
    h: usize,
    colours: &[Colour],
) -> Result<()> {
    check("label picture", "labels", labels.len(), w * h)?;
    if colours.len() <= 255 {
        let bytes: Vec<u8> = labels.iter().map(|&l| l as u8).collect();
        let (w, h) = (w as u32, h as u32);
        written(path, encoded(&bytes, w, h, INDEXED, colours))
    } else {
        let bytes: Vec<u8> = labels.iter().flat_map(|l| l.to_be_bytes()).collect();
        write_png(path, &bytes, w, h, (ColorType::Grayscale, BitDepth::Sixteen))
    }
}

/// Writes the part of `picture` that is of one cluster: elsewhere it is transparent.
pub fn write_cutout(path: &Path, picture: &RgbImage, labels: &[u16], id: u16) -> Result<()> {
    let (w, h) = (picture.width() as usize, picture.height() as usize);
    check("cutout", "labels", labels.len(), w * h)?;
    let seen = |(pixel, label): (&[u8], &u16)| match *label == id {
        true => [pixel[0], pixel[1], pixel[2], 255],
        false => [0; 4],
    };
    let bytes: Vec<u8> = picture.as_raw().chunks_exact(3).zip(labels).flat_map(seen).collect();
    write_png(path, &bytes, w, h, (ColorType::Rgba, BitDepth::Eight))
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
    encoded(picture.as_raw(), w, h, RGB, &[])
}

/// A PNG that says of itself who wrote it, so that nobody learns from it as if it were a photo.
/// `bytes` are samples as PNG has them; the palette is that of [`INDEXED`] ones.
fn encoded(
    bytes: &[u8],
    w: u32,
    h: u32,
    kind: (ColorType, BitDepth),
    palette: &[Colour],
) -> Result<Vec<u8>, EncodingError> {
    let mut png = Vec::new();
    let mut encoder = Encoder::new(&mut png, w, h);
    encoder.set_color(kind.0);
    encoder.set_depth(kind.1);
    encoder.set_filter(if palette.is_empty() { Filter::Adaptive } else { Filter::NoFilter });
    if !palette.is_empty() {
        encoder.set_palette(palette.concat());
    }
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
    written(path, encoded(bytes, w as u32, h as u32, kind, &[]))
}

fn written(path: &Path, png: Result<Vec<u8>, EncodingError>) -> Result<()> {
    let png = png.map_err(|e| Error::file(path, e, "choose a smaller --size"))?;
    write_atomic(path, |out| out.write_all(&png))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::palette::palette;

    #[test]
    fn label_pictures_read_back_as_the_labels() {
        let dir = tempfile::tempdir().unwrap();
        for (labels, clusters, depth) in
            [([0, 7, 254, 2, 3, 1], 255, 8), ([0, 255, 299, 2, 3, 1], 300, 16)]
        {
            let path = dir.path().join(format!("{depth}.png"));
            let colours = palette(clusters);
            write_labels(&path, &labels, 3, 2, &colours).unwrap();
            // It says who wrote it where data sets look for that, behind the palette.
            assert!(!crate::data::is_foreign(&path));
            let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
            let mut reader = png::Decoder::new(file).read_info().unwrap();
            let text = &reader.info().uncompressed_latin1_text[0];
            assert_eq!((&*text.keyword, &*text.text), MARK);
            let known = reader.info().palette.as_ref().map(|p| p.to_vec());
            assert_eq!(known, (depth == 8).then(|| colours.concat()));
            let mut raw = vec![0; reader.output_buffer_size().unwrap()];
            reader.next_frame(&mut raw).unwrap();
            let values: Vec<u16> = match depth {
                8 => raw.iter().map(|&v| v.into()).collect(),
                _ => raw.chunks(2).map(|v| u16::from_be_bytes([v[0], v[1]])).collect(),
            };
            assert_eq!(values, labels);
        }
        assert!(write_labels(&dir.path().join("x.png"), &[0; 5], 3, 2, &palette(2)).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_cutout_is_clear_where_another_cluster_is() {
        let dir = tempfile::tempdir().unwrap();
        let (path, picture) = (dir.path().join("x.png"), RgbImage::from_raw(2, 1, vec![9; 6]));
        write_cutout(&path, &picture.unwrap(), &[4, 1], 1).unwrap();
        assert_eq!(image::open(&path).unwrap().into_rgba8().into_raw(), [0, 0, 0, 0, 9, 9, 9, 255]);
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
