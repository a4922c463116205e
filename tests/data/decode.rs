//! Every kind of picture and label map, whole and damaged.

use std::io::Cursor;
use std::path::Path;

use crate::util::files::{gradient, orientation_exif, with_orientation, write_label};
use crate::util::root;
use image::{DynamicImage, ImageBuffer, ImageFormat, LumaA, Rgba};
use picie::base::Result;
use picie::data::decode::{self, Rgb, coloured_label, label};

fn rgb(path: &Path) -> Result<Rgb> {
    decode::rgb(path, true)
}

fn rgb_of_label(path: &Path, label: &Path) -> Result<Rgb> {
    decode::rgb_of_label(path, label, true)
}

fn size(path: &Path) -> Result<(usize, usize)> {
    decode::size(path, true)
}

fn fails<T>(result: Result<T>) -> String {
    result.err().expect("an error").to_string()
}

/// Four flat quarters of 24 × 16 in (200,40,30) (30,180,60) / (40,60,210) (240,230,80), written by
/// Pillow 13 as CMYK; with the Adobe transform byte set to 2 the same file is read as YCCK.
const CMYK: &[u8] = include_bytes!("cmyk.jpg");

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
    close(
        quarters(&rgb(&path).unwrap()),
        [[200, 40, 30], [30, 180, 60], [40, 60, 210], [240, 230, 80]],
    );
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
    assert_eq!(
        read(DynamicImage::ImageRgb16(wide), ImageFormat::Png)[..6],
        [10, 200, 0, 10, 200, 1]
    );
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

/// A scene with halved chroma, and what Pillow 13 (libjpeg-turbo) reads of it. The inverse
/// transform and the enlarging of chroma are rounded elsewhere: 6 levels at most were seen in
/// twenty photos.
#[test]
fn pixels_of_a_jpeg_are_those_of_libjpeg_turbo_to_a_few_levels() {
    let dir = root().join("tests/data");
    let got = rgb(&dir.join("scene-420.jpg")).unwrap().pixels;
    let want = rgb(&dir.join("scene-420.png")).unwrap().pixels;
    let off: Vec<u8> = got.iter().zip(&want).map(|(got, want)| got.abs_diff(*want)).collect();
    let (most, sum) = (off.iter().max().copied(), off.iter().map(|&v| u64::from(v)).sum::<u64>());
    assert_eq!(got.len(), 3 * 128 * 96);
    assert!(most <= Some(6) && sum as f64 <= 0.3 * off.len() as f64, "{most:?}, {sum}");
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
        let mut encoder = png::Encoder::new(std::fs::File::create(&path).unwrap(), 3, 2);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(depth);
        encoder.write_header().unwrap().write_image_data(&packed).unwrap();
        assert_eq!(label(&path).unwrap().ids, want, "grey, {depth:?}");
    }
}

#[test]
fn a_label_map_of_known_colours_is_what_they_stand_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.png");
    let colours = [([255, 255, 255], 0), ([0, 0, 255], 1), ([0, 255, 255], 2), ([0, 0, 0], 255)];
    let picture = |ids: &[usize]| {
        ImageBuffer::from_fn(3, 2, |x, y| image::Rgb(colours[ids[(3 * y + x) as usize]].0))
    };
    let ids = [2, 0, 1, 1, 2, 0];
    picture(&[2, 0, 3, 1, 3, 0]).save(&path).unwrap();
    assert_eq!(coloured_label(&path, &colours, false).unwrap().ids, [2, 0, 255, 1, 255, 0]);
    picture(&ids).save(&path).unwrap();
    assert_eq!(coloured_label(&path, &colours, false).unwrap().ids, [2, 0, 1, 1, 2, 0]);
    let clear = DynamicImage::ImageRgb8(picture(&ids)).into_rgba8();
    clear.save(&path).unwrap();
    assert_eq!(coloured_label(&path, &colours, false).unwrap().ids, [2, 0, 1, 1, 2, 0]);
    // Grey ids are themselves.
    write_label(&path, 3, 1, &[5, 0, 255]);
    assert_eq!(coloured_label(&path, &colours, false).unwrap().ids, [5, 0, 255]);
    // A palette's colours count, not its order.
    let mut encoder = png::Encoder::new(std::fs::File::create(&path).unwrap(), 3, 1);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Two);
    encoder.set_palette(vec![0, 255, 255, 255, 255, 255, 0, 0, 255]);
    encoder.write_header().unwrap().write_image_data(&[0b00_01_10_00]).unwrap();
    assert_eq!(coloured_label(&path, &colours, false).unwrap().ids, [2, 0, 1]);
    let mut encoder = png::Encoder::new(std::fs::File::create(&path).unwrap(), 3, 1);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Two);
    encoder.set_palette(vec![0, 0, 255, 255, 255, 255]);
    encoder.write_header().unwrap().write_image_data(&[0b00_01_10_00]).unwrap();
    assert!(
        fails(coloured_label(&path, &colours, false)).contains("its palette has no colour 2; copy")
    );
    gradient(4, 3).save(&path).unwrap();
    let e = fails(coloured_label(&path, &colours, false));
    assert!(e.contains("a.png: the label map holds the colour [0, 90, 40]"), "{e}");
}

#[test]
fn a_colour_label_map_and_values_above_255_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.png");
    gradient(4, 3).save(&path).unwrap();
    let e = fails(label(&path));
    assert!(e.contains("this one is Rgb of 8 bits; name the colours of classes in"), "{e}");
    // What `classes.json` cannot mend.
    ImageBuffer::from_fn(2, 2, |_, _| image::LumaA([1u8, 255])).save(&path).unwrap();
    let e = fails(label(&path));
    assert!(e.contains("this one is GrayscaleAlpha of 8 bits; convert it so that"), "{e}");
    ImageBuffer::from_fn(2, 2, |_, _| image::Luma([300u16])).save(&path).unwrap();
    assert!(fails(label(&path)).contains("the label map holds the value 300, and 255 is the"));
    ImageBuffer::from_fn(3, 2, |x, y| image::Luma([(x + 100 * y) as u16])).save(&path).unwrap();
    assert_eq!(label(&path).unwrap().ids, [0, 1, 2, 100, 101, 102]);
}

/// Such pictures come from float TIFFs of 0..255 or of digital numbers, and would be plain white.
#[test]
fn a_picture_of_floats_beyond_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tif");
    for (scale, read) in [(1.0, true), (1.005, true), (255.0, false), (-1.0, false)] {
        let picture = ImageBuffer::from_fn(4, 3, |x, _| image::Rgb([x as f32 / 3.0 * scale; 3]));
        DynamicImage::ImageRgb32F(picture).save(&path).unwrap();
        if read {
            assert_eq!(rgb(&path).unwrap().pixels[3 * 3], 255);
        } else {
            assert!(fails(rgb(&path)).contains("not within 0 to 1; scale them"), "{scale}");
        }
    }
}

/// A picture of four flat quarters, 32 × 48, as it looks upright.
fn upright() -> image::RgbImage {
    let colour = |x: u32, y: u32| {
        [[200, 40, 30], [30, 180, 60], [40, 60, 210], [240, 230, 80]]
            [(y / 24 * 2 + x / 16) as usize]
    };
    ImageBuffer::from_fn(32, 48, |x, y| image::Rgb(colour(x, y)))
}

/// What a camera stores under each orientation: the value says how row 0 and column 0 of the file
/// look upright (EXIF 2.3, 4.6.4).
fn stored(upright: &image::RgbImage, orientation: u8) -> image::RgbImage {
    let (w, h) = upright.dimensions();
    let (sw, sh) = if orientation >= 5 { (h, w) } else { (w, h) };
    ImageBuffer::from_fn(sw, sh, |x, y| {
        *match orientation {
            1 => upright.get_pixel(x, y),                 // top, left
            2 => upright.get_pixel(w - 1 - x, y),         // top, right
            3 => upright.get_pixel(w - 1 - x, h - 1 - y), // bottom, right
            4 => upright.get_pixel(x, h - 1 - y),         // bottom, left
            5 => upright.get_pixel(y, x),                 // left, top
            6 => upright.get_pixel(w - 1 - y, x),         // right, top
            7 => upright.get_pixel(w - 1 - y, h - 1 - x), // right, bottom
            _ => upright.get_pixel(y, h - 1 - x),         // left, bottom
        }
    })
}

#[test]
fn pictures_are_turned_upright() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let want = upright();
    for orientation in 1..=8 {
        let stored = stored(&want, orientation);
        let bytes = |format| {
            let mut bytes = Cursor::new(Vec::new());
            stored.write_to(&mut bytes, format).unwrap();
            bytes.into_inner()
        };
        let jpeg = with_orientation(&bytes(ImageFormat::Jpeg), orientation);
        let png = {
            let mut bytes = Vec::new();
            let mut info = png::Info::with_size(stored.width(), stored.height());
            (info.color_type, info.exif_metadata) =
                (png::ColorType::Rgb, Some(orientation_exif(orientation).into()));
            let mut writer =
                png::Encoder::with_info(&mut bytes, info).unwrap().write_header().unwrap();
            writer.write_image_data(stored.as_raw()).unwrap();
            writer.finish().unwrap();
            bytes
        };
        let webp =
            webp_with_orientation(&bytes(ImageFormat::WebP), stored.dimensions(), orientation);
        for (name, bytes) in [("JPEG", jpeg), ("PNG", png), ("WebP", webp)] {
            std::fs::write(&path, bytes).unwrap();
            let got = rgb(&path).unwrap();
            assert_eq!((got.width, got.height), (32, 48), "{name} {orientation}");
            assert_eq!(size(&path).unwrap(), (32, 48), "{name} {orientation}");
            // The JPEG's own quantisation of flat blocks.
            let off =
                got.pixels.iter().zip(want.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(
                off <= if name == "JPEG" { 4 } else { 0 },
                "{name} {orientation}: {off} levels off"
            );
        }
    }
}

/// The extended layout: VP8X says that there is EXIF, and the picture's own chunk follows it.
fn webp_with_orientation(webp: &[u8], (w, h): (u32, u32), orientation: u8) -> Vec<u8> {
    let chunk = |name: &[u8], body: &[u8]| {
        [name, &(body.len() as u32).to_le_bytes(), body, &vec![0; body.len() % 2]].concat()
    };
    let side = |side: u32| (side - 1).to_le_bytes()[..3].to_vec();
    let head = chunk(b"VP8X", &[vec![0b1000, 0, 0, 0], side(w), side(h)].concat());
    let body =
        [b"WEBP", &head[..], &webp[12..], &chunk(b"EXIF", &orientation_exif(orientation))].concat();
    chunk(b"RIFF", &body)
}

#[test]
fn an_orientation_that_makes_no_sense_turns_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jpg");
    gradient(40, 24).save_with_format(&path, ImageFormat::Jpeg).unwrap();
    let plain = std::fs::read(&path).unwrap();
    let want = rgb(&path).unwrap().pixels;
    let mut broken = with_orientation(&plain, 6);
    // A directory that lies outside of the segment.
    let at = broken.windows(4).position(|w| w == b"MM\0\x2a").unwrap();
    broken[at + 6] = 0xFF;
    for bytes in [with_orientation(&plain, 0), with_orientation(&plain, 9), broken] {
        std::fs::write(&path, bytes).unwrap();
        let got = rgb(&path).unwrap();
        assert_eq!((got.width, got.height, size(&path).unwrap()), (40, 24, (40, 24)));
        assert_eq!(got.pixels, want);
    }
}

#[test]
fn a_label_map_of_the_stored_size_alone_keeps_a_picture_unturned() {
    let dir = tempfile::tempdir().unwrap();
    let (path, label) = (dir.path().join("a.jpg"), dir.path().join("a.png"));
    gradient(40, 24).save_with_format(&path, ImageFormat::Jpeg).unwrap();
    let plain = std::fs::read(&path).unwrap();
    std::fs::write(&path, with_orientation(&plain, 6)).unwrap();
    let read = |w: usize, h: usize| {
        write_label(&label, w, h, &vec![0; w * h]);
        rgb_of_label(&path, &label).map(|image| (image.width, image.height)).unwrap()
    };
    assert_eq!((read(40, 24), read(24, 40), read(30, 30)), ((40, 24), (24, 40), (24, 40)));
    std::fs::write(&label, "no map").unwrap();
    assert_eq!(rgb_of_label(&path, &label).unwrap().width, 24);
    // Upside down is the same size: upright.
    std::fs::write(&path, with_orientation(&plain, 3)).unwrap();
    write_label(&label, 40, 24, &[0; 960]);
    assert_eq!(rgb_of_label(&path, &label).unwrap().pixels, rgb(&path).unwrap().pixels);
    std::fs::write(&path, plain).unwrap();
    assert_ne!(rgb_of_label(&path, &label).unwrap().pixels[..9], [0; 9]);
}
