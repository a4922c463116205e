//! A file → RGB pixels, or → the ids of a label map.

use std::io::Cursor;
use std::path::Path;

use crate::base::{Error, Result};

const DAMAGED: &str = "copy or download it again";

/// A decoded picture.
pub struct Rgb {
    pub width: usize,
    pub height: usize,
    /// u8 (H, W, 3).
    pub pixels: Vec<u8>,
}

/// A decoded label map.
pub struct LabelMap {
    pub width: usize,
    pub height: usize,
    /// u8 (H, W), the values as they stand in the file.
    pub ids: Vec<u8>,
}

/// Reads an image of any kind as 8-bit RGB: grey is repeated, CMYK converted as Adobe writes it, 16 bits scaled to 8, alpha
/// dropped (the colour below it stays, as in Pillow's `convert("RGB")`). The format is taken from the content, not the name.
///
/// NOTE: EXIF orientation is not applied, since the reference code does not and label maps fit the pixels as stored.
pub fn rgb(path: &Path) -> Result<Rgb> {
    let bytes = read(path)?;
    if bytes.starts_with(&[0xFF, 0xD8]) && !jpeg_is_whole(&bytes) {
        return Err(Error::file(path, "the JPEG is cut short", DAMAGED));
    }
    let reader = image::ImageReader::new(Cursor::new(&bytes)).with_guessed_format().map_err(|e| Error::io(path, e))?;
    if reader.format().is_none() {
        return Err(not_an_image(path));
    }
    let image = reader.decode().map_err(|e| unreadable(path, &e))?.into_rgb8();
    let (width, height) = (image.width() as usize, image.height() as usize);
    if width == 0 || height == 0 {
        return Err(Error::file(path, "the image has no pixels", DAMAGED));
    }
    Ok(Rgb { width, height, pixels: image.into_raw() })
}

/// (width, height) of an image, from its header alone.
pub fn size(path: &Path) -> Result<(usize, usize)> {
    let io = |e| Error::io(path, e);
    let reader = image::ImageReader::open(path).and_then(|r| r.with_guessed_format()).map_err(io)?;
    if std::fs::metadata(path).map_err(io)?.len() == 0 {
        return Err(empty(path));
    }
    if reader.format().is_none() {
        return Err(not_an_image(path));
    }
    let (width, height) = reader.into_dimensions().map_err(|e| unreadable(path, &e))?;
    Ok((width as usize, height as usize))
}

fn unreadable(path: &Path, e: &image::ImageError) -> Error {
    match e {
        image::ImageError::Unsupported(_) => not_an_image(path),
        _ => Error::file(path, one_line(e), DAMAGED),
    }
}

fn empty(path: &Path) -> Error {
    Error::file(path, "the file is empty", DAMAGED)
}

fn not_an_image(path: &Path) -> Error {
    Error::file(path, "no image of a kind that is read (JPEG, PNG, BMP, WebP and TIFF are)", "remove or convert it")
}

/// Reads a label map: an 8-bit grey PNG, or one with a palette, whose *index* is the id.
pub fn label(path: &Path) -> Result<LabelMap> {
    coloured_label(path, &[])
}

/// As [`label`]; with `colours`, a colour PNG or one with a palette holds those colours, and the id is a colour's place among them.
pub fn coloured_label(path: &Path, colours: &[[u8; 3]]) -> Result<LabelMap> {
    let bytes = read(path)?;
    let damaged = |e: png::DecodingError| Error::file(path, format!("not a readable PNG: {}", one_line(&e)), DAMAGED);
    let mut reader = png::Decoder::new(Cursor::new(&bytes)).read_info().map_err(damaged)?;
    let (color, depth) = reader.output_color_type();
    let channels = match color {
        png::ColorType::Rgb => 3,
        png::ColorType::Rgba => 4,
        _ => 1,
    };
    let bits = match (color, depth) {
        (png::ColorType::Rgb | png::ColorType::Rgba, png::BitDepth::Eight) if !colours.is_empty() => 8,
        (png::ColorType::Grayscale, png::BitDepth::Eight) => 8,
        (png::ColorType::Indexed, depth) => depth as usize,
        _ => {
            return Err(Error::file(
                path,
                format!("a label map is an 8-bit grey or a palette PNG, this one is {color:?} of {} bits", depth as u8),
                "convert it so that a pixel's value is its class id",
            ));
        }
    };
    let size =
        reader.output_buffer_size().ok_or_else(|| Error::file(path, "too large a label map", "make it smaller"))?;
    let mut rows = vec![0; size];
    let info = reader.next_frame(&mut rows).map_err(damaged)?;
    let (width, height) = (info.width as usize, info.height as usize);
    let id = |colour: &[u8]| {
        let place = colours.iter().position(|known| known[..] == colour[..3]);
        place.map(|id| id as u8).ok_or_else(|| {
            let what = format!("the label map holds the colour {:?}, which no class has", &colour[..3]);
            Error::file(path, what, "use the published colours, or grey ids")
        })
    };
    if bits == 8 {
        rows.truncate(width * height * channels);
    } else {
        // 1, 2 or 4 bits a pixel, the first pixel of a byte in its high bits, each row from a new byte.
        let pixel = |row: &[u8], x: usize| row[x * bits / 8] >> (8 - bits - x * bits % 8) & ((1 << bits) - 1);
        rows = rows.chunks_exact(info.line_size).flat_map(|row| (0..width).map(move |x| pixel(row, x))).collect();
    }
    let palette = reader.info().palette.as_deref().filter(|_| !colours.is_empty());
    let ids = match palette {
        _ if channels > 1 => rows.chunks_exact(channels).map(id).collect::<Result<_>>()?,
        Some(palette) => {
            let entry = |&i: &u8| id(palette.get(3 * usize::from(i)..).filter(|p| p.len() >= 3).unwrap_or(&[0; 3]));
            rows.iter().map(entry).collect::<Result<_>>()?
        }
        None => rows,
    };
    Ok(LabelMap { width, height, ids })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    if bytes.is_empty() {
        return Err(empty(path));
    }
    Ok(bytes)
}

/// Whether an end-of-image marker (FF D9) follows the first scan. Inside a scan these two bytes never stand side by side.
///
/// NOTE: the decoder fills what is missing with grey and says nothing.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[mark, code, high, low]) = bytes.get(at..at + 4) {
        at += match (mark, code) {
            (0xFF, 0xDA) => return bytes[at..].windows(2).rev().any(|w| w == [0xFF, 0xD9]),
            (0xFF, 0x01 | 0xD0..=0xD7) => 2,
            (0xFF, 0x02..) if code != 0xFF => 2 + (usize::from(high) << 8 | usize::from(low)),
            // Fill bytes and stray ones between segments.
            _ => 1,
        };
    }
    false
}

fn one_line(e: &dyn std::error::Error) -> String {
    e.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{gradient, write_label};
    use image::{DynamicImage, ImageBuffer, ImageFormat, LumaA, Rgba};

    fn fails<T>(result: Result<T>) -> String {
        result.err().expect("an error").to_string()
    }

    /// Four flat quarters of 24 × 16 in (200,40,30) (30,180,60) / (40,60,210) (240,230,80), written by Pillow 13 as CMYK;
    /// with the Adobe transform byte set to 2 the same file is read as YCCK.
    const CMYK: &[u8] = include_bytes!("testing/cmyk.jpg");

    fn quarters(image: &Rgb) -> [[u8; 3]; 4] {
        assert_eq!((image.width, image.height, image.pixels.len()), (24, 16, 24 * 16 * 3));
        [(6, 4), (18, 4), (6, 12), (18, 12)].map(|(x, y)| {
            let at = (y * 24 + x) * 3;
            [image.pixels[at], image.pixels[at + 1], image.pixels[at + 2]]
        })
    }

    fn close(got: [[u8; 3]; 4], want: [[u8; 3]; 4]) {
        // 2 levels: the JPEG's own quantisation of a flat block, and the rounding of c·k/255.
        let ok = got.as_flattened().iter().zip(want.as_flattened()).all(|(g, w)| g.abs_diff(*w) <= 2);
        assert!(ok, "{got:?} is not {want:?}");
    }

    #[test]
    fn cmyk_and_ycck_come_out_as_pillow_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jpg");
        std::fs::write(&path, CMYK).unwrap();
        close(quarters(&rgb(&path).unwrap()), [[200, 40, 30], [30, 180, 60], [40, 60, 210], [240, 230, 80]]);
        let mut ycck = CMYK.to_vec();
        let adobe = ycck.windows(5).position(|w| w == b"Adobe").unwrap();
        ycck[adobe + 11] = 2;
        std::fs::write(&path, ycck).unwrap();
        close(quarters(&rgb(&path).unwrap()), YCCK_BY_PILLOW);
    }

    const YCCK_BY_PILLOW: [[u8; 3]; 4] = [[192, 0, 211], [255, 194, 133], [100, 250, 255], [82, 16, 0]];

    #[test]
    fn grey_sixteen_bit_and_alpha_images_are_read_as_rgb() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let read = |image: DynamicImage, format| {
            image.save_with_format(&path, format).unwrap();
            rgb(&path).unwrap().pixels
        };
        let grey = DynamicImage::ImageLuma8(ImageBuffer::from_fn(5, 3, |_, _| image::Luma([77])));
        assert_eq!(read(grey.clone(), ImageFormat::Png), [77; 45]);
        // 1 level: the rounding of the JPEG of a flat block.
        assert!(read(grey, ImageFormat::Jpeg).iter().all(|v| v.abs_diff(77) <= 1));
        // 257 · v is v in 16 bits.
        let wide = ImageBuffer::from_fn(2, 2, |x, _| image::Rgb([257 * 10, 257 * 200, 257 * x as u16]));
        assert_eq!(read(DynamicImage::ImageRgb16(wide), ImageFormat::Png)[..6], [10, 200, 0, 10, 200, 1]);
        let wide = ImageBuffer::from_fn(2, 2, |_, _| image::Luma([257 * 9]));
        assert_eq!(read(DynamicImage::ImageLuma16(wide), ImageFormat::Png), [9; 12]);
        // What lies under a transparent pixel stays.
        let clear = ImageBuffer::from_fn(2, 2, |_, y| Rgba([1, 2, 3, 255 * y as u8]));
        assert_eq!(read(DynamicImage::ImageRgba8(clear), ImageFormat::Png)[..6], [1, 2, 3, 1, 2, 3]);
        let clear = ImageBuffer::from_fn(2, 2, |_, _| LumaA([8, 0]));
        assert_eq!(read(DynamicImage::ImageLumaA8(clear), ImageFormat::Png), [8; 12]);
    }

    #[test]
    fn every_named_format_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let image = gradient(9, 6);
        for (name, format) in [
            ("a.png", ImageFormat::Png),
            ("a.bmp", ImageFormat::Bmp),
            ("a.webp", ImageFormat::WebP),
            ("a.tif", ImageFormat::Tiff),
        ] {
            let path = dir.path().join(name);
            image.save_with_format(&path, format).unwrap();
            assert_eq!(rgb(&path).unwrap().pixels, *image.as_raw(), "{name}");
        }
    }

    #[test]
    fn a_jpeg_cut_anywhere_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cut.jpg");
        gradient(40, 30).save_with_format(&path, ImageFormat::Jpeg).unwrap();
        let whole = std::fs::read(&path).unwrap();
        assert!(rgb(&path).is_ok());
        for keep in [1, 2, 3, 20, 300, whole.len() - 200, whole.len() - 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..keep]).unwrap();
            let e = fails(rgb(&path));
            assert!(e.contains("cut.jpg") && !e.contains('\n'), "{keep}: {e}");
        }
        std::fs::write(&path, []).unwrap();
        assert!(fails(rgb(&path)).ends_with("cut.jpg: the file is empty; copy or download it again"));
        std::fs::write(&path, "hello, I am a text").unwrap();
        assert!(fails(rgb(&path)).contains("no image of a kind that is read"));
        // Bytes after the end are harmless.
        std::fs::write(&path, [&whole[..], b"trailer"].concat()).unwrap();
        assert!(rgb(&path).is_ok());
    }

    #[test]
    fn a_png_cut_short_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cut.png");
        gradient(40, 30).save(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(fails(rgb(&path)).contains("cut.png"));
        write_label(&path, 40, 30, &[7; 1200]);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(fails(label(&path)).contains("not a readable PNG"));
    }

    #[test]
    fn a_label_map_is_its_values_or_its_palette_indices() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        let ids: Vec<u8> = (0..35).map(|i| i * 7).collect();
        write_label(&path, 7, 5, &ids);
        let map = label(&path).unwrap();
        assert_eq!((map.width, map.height, map.ids), (7, 5, ids));
        for (depth, packed, want) in [
            (png::BitDepth::Eight, vec![2, 0, 1, 1, 2, 0], [2, 0, 1, 1, 2, 0]),
            (png::BitDepth::Four, vec![0x20, 0x10, 0x12, 0x00], [2, 0, 1, 1, 2, 0]),
            (png::BitDepth::Two, vec![0b10_00_01_00, 0b01_10_00_00], [2, 0, 1, 1, 2, 0]),
            (png::BitDepth::One, vec![0b101_00000, 0b010_00000], [1, 0, 1, 0, 1, 0]),
        ] {
            let mut encoder = png::Encoder::new(std::fs::File::create(&path).unwrap(), 3, 2);
            encoder.set_color(png::ColorType::Indexed);
            encoder.set_depth(depth);
            encoder.set_palette(vec![200, 0, 0, 0, 200, 0, 0, 0, 200]);
            encoder.write_header().unwrap().write_image_data(&packed).unwrap();
            assert_eq!(label(&path).unwrap().ids, want, "{depth:?}");
        }
    }

    #[test]
    fn a_label_map_of_known_colours_is_their_places() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        let colours = [[255, 255, 255], [0, 0, 255], [0, 255, 255]];
        let picture = |ids: &[usize]| ImageBuffer::from_fn(3, 2, |x, y| image::Rgb(colours[ids[(3 * y + x) as usize]]));
        let ids = [2, 0, 1, 1, 2, 0];
        picture(&ids).save(&path).unwrap();
        assert_eq!(coloured_label(&path, &colours).unwrap().ids, [2, 0, 1, 1, 2, 0]);
        let clear = DynamicImage::ImageRgb8(picture(&ids)).into_rgba8();
        clear.save(&path).unwrap();
        assert_eq!(coloured_label(&path, &colours).unwrap().ids, [2, 0, 1, 1, 2, 0]);
        // Grey ids are themselves.
        write_label(&path, 3, 1, &[5, 0, 255]);
        assert_eq!(coloured_label(&path, &colours).unwrap().ids, [5, 0, 255]);
        // A palette's colours count, not its order.
        let mut encoder = png::Encoder::new(std::fs::File::create(&path).unwrap(), 3, 1);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_depth(png::BitDepth::Two);
        encoder.set_palette(vec![0, 255, 255, 255, 255, 255, 0, 0, 255]);
        encoder.write_header().unwrap().write_image_data(&[0b00_01_10_00]).unwrap();
        assert_eq!(coloured_label(&path, &colours).unwrap().ids, [2, 0, 1]);
        gradient(4, 3).save(&path).unwrap();
        let e = fails(coloured_label(&path, &colours));
        assert!(e.contains("a.png: the label map holds the colour [0, 90, 40]"), "{e}");
    }

    #[test]
    fn a_colour_or_sixteen_bit_label_map_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        gradient(4, 3).save(&path).unwrap();
        assert!(fails(label(&path)).contains("this one is Rgb of 8 bits"));
        ImageBuffer::from_fn(2, 2, |_, _| image::Luma([300u16])).save(&path).unwrap();
        assert!(fails(label(&path)).contains("Grayscale of 16 bits"));
    }
}
