//! Headers of pictures are claims: what they say is checked before memory is taken.

use std::path::{Path, PathBuf};

use picie::base::Result;
use picie::data::decode;

use crate::util::peak;

/// A PNG of so many pixels with nothing but its header, or with all of its pixels, black.
fn png(path: &Path, (width, height): (u32, u32), color: png::ColorType, whole: bool) {
    let mut encoder = png::Encoder::new(std::fs::File::create(path).unwrap(), width, height);
    encoder.set_color(color);
    encoder.set_compression(png::Compression::Fastest);
    let mut writer = encoder.write_header().unwrap();
    if whole {
        let row = vec![0; width as usize * color.samples()];
        let mut stream = writer.stream_writer().unwrap();
        (0..height).for_each(|_| std::io::Write::write_all(&mut stream, &row).unwrap());
        stream.finish().unwrap();
    } else {
        writer.write_chunk(png::chunk::IDAT, &[0x78, 0x9c]).unwrap();
    }
}

/// A TIFF of so many grey pixels in one strip, which ends early.
fn tiff(path: &Path, (width, height): (u32, u32)) {
    let tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 200), (277, 1)];
    let tags = tags.into_iter().chain([(278, height), (279, 1000)]);
    let tag = |(tag, value): (u16, u32)| {
        [&tag.to_le_bytes()[..], &[4, 0, 1, 0, 0, 0], &value.to_le_bytes()].concat()
    };
    let tags: Vec<u8> = tags.flat_map(tag).collect();
    let mut bytes = [&b"II*\0\x08\0\0\0\x09\0"[..], &tags, &[0; 4]].concat();
    bytes.resize(1200, 0);
    std::fs::write(path, bytes).unwrap();
}

/// The error of `read`, which must come before it has taken any memory to speak of.
#[track_caller]
fn at_once<T>(path: &Path, read: impl Fn(&Path) -> Result<T>) -> String {
    let (read, most) = peak(|| read(path).err().expect("an error").to_string());
    assert!(most < 4 << 20, "{}: {most} bytes", path.display());
    read
}

#[test]
fn more_pixels_than_are_read_are_one_line_and_take_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let (bomb, labels, strip) = (file("bomb.png"), file("labels.png"), file("bomb.tif"));
    png(&bomb, (50_000, 50_000), png::ColorType::Rgb, false);
    png(&labels, (50_000, 50_000), png::ColorType::Grayscale, false);
    tiff(&strip, (50_000, 50_000));
    let says = |path: &PathBuf| {
        format!(
            "{}: 50000 × 50000 pixels, and at most 268 megapixels are read; make it smaller, or cut \
             it into tiles",
            path.display()
        )
    };
    for path in [&bomb, &strip] {
        assert_eq!(at_once(path, |path| decode::rgb(path, true)), says(path));
        assert_eq!(at_once(path, |path| decode::size(path, true)), says(path));
    }
    assert_eq!(at_once(&labels, decode::label), says(&labels));
}

/// A claim that is not too large, in a file that cannot hold what it claims.
#[test]
fn a_header_alone_takes_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let [picture, labels] = ["a.png", "b.png"].map(|name| dir.path().join(name));
    png(&picture, (16_000, 16_000), png::ColorType::Rgb, false);
    png(&labels, (16_000, 16_000), png::ColorType::Grayscale, false);
    for error in
        [at_once(&picture, |path| decode::rgb(path, true)), at_once(&labels, decode::label)]
    {
        assert!(error.contains("cut short: 16000 × 16000 pixels do not fit into its "), "{error}");
    }
}

/// More than the 512 MiB that decoders allow by default.
#[test]
fn a_sound_photo_of_180_megapixels_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.png");
    png(&path, (13_400, 13_400), png::ColorType::Rgb, true);
    let photo = decode::rgb(&path, true).unwrap();
    assert_eq!((photo.width, photo.height, photo.pixels.len()), (13_400, 13_400, 538_680_000));
}
