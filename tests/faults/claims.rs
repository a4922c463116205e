//! Headers of pictures are claims: what they say is checked before memory is taken.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use picie::base::Result;
use picie::data::decode;

use crate::util::peak;

type Size = (u32, u32);

/// The writer of a PNG of so many pixels, with its header written.
fn begun(path: &Path, size: Size, color: png::ColorType, depth: png::BitDepth) -> Writer {
    let mut encoder = png::Encoder::new(File::create(path).unwrap(), size.0, size.1);
    encoder.set_color(color);
    encoder.set_depth(depth);
    encoder.set_compression(png::Compression::Fastest);
    encoder.write_header().unwrap()
}

type Writer = png::Writer<File>;

/// A PNG of so many pixels with nothing but its header.
pub fn header(path: &Path, size: Size, color: png::ColorType) {
    let mut writer = begun(path, size, color, png::BitDepth::Eight);
    writer.write_chunk(png::chunk::IDAT, &[0x78, 0x9c]).unwrap();
}

/// A PNG with all of its pixels, of `bytes` bytes each, black.
fn black(mut writer: Writer, (width, height): Size, bytes: usize) {
    let row = vec![0; width as usize * bytes];
    let mut stream = writer.stream_writer().unwrap();
    (0..height).for_each(|_| stream.write_all(&row).unwrap());
    stream.finish().unwrap();
}

/// A black PNG of 16 bits a colour.
pub fn sixteen_bits(path: &Path, size: Size) {
    black(begun(path, size, png::ColorType::Rgb, png::BitDepth::Sixteen), size, 6);
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
    header(&bomb, (50_000, 50_000), png::ColorType::Rgb);
    header(&labels, (50_000, 50_000), png::ColorType::Grayscale);
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
    header(&picture, (16_000, 16_000), png::ColorType::Rgb);
    header(&labels, (16_000, 16_000), png::ColorType::Grayscale);
    for error in [
        at_once(&picture, |path| decode::rgb(path, true)),
        at_once(&picture, |path| decode::size(path, true)),
        at_once(&labels, decode::label),
    ] {
        assert!(error.contains("cut short: 16000 × 16000 pixels do not fit into its "), "{error}");
    }
}

/// Gigabytes of video under the name of a photo: its first bytes are all that is read.
#[test]
fn what_is_no_picture_is_not_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.jpg");
    std::fs::write(&path, b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41").unwrap();
    File::options().append(true).open(&path).unwrap().set_len(40 << 30).unwrap();
    for error in [at_once(&path, |path| decode::rgb(path, true)), at_once(&path, decode::label)] {
        assert!(error.contains("this is ") && error.contains("MPEG-4"), "{error}");
    }
    // One that begins as a photo is looked at for its length.
    let photo = [&b"\xff\xd8\xff\xe0"[..], &[0; 100]].concat();
    std::fs::write(&path, photo).unwrap();
    File::options().append(true).open(&path).unwrap().set_len(8 << 40).unwrap();
    let error = at_once(&path, |path| decode::rgb(path, true));
    assert!(error.contains("to read it takes 8388608 MiB of memory, and "), "{error}");
}

/// A picture of 64 × 64 in one tile of 1024 × 1024, which is larger than it by far.
#[test]
fn a_small_tiff_in_a_large_tile_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tile.tif");
    let tile = 1024 * 1024;
    let tags = [(256, 64), (257, 64), (258, 8), (259, 1), (262, 1), (277, 1)];
    let tags = tags.into_iter().chain([(322, 1024), (323, 1024), (324, 200), (325, tile)]);
    let tag = |(tag, value): (u16, u32)| {
        [&tag.to_le_bytes()[..], &[4, 0, 1, 0, 0, 0], &value.to_le_bytes()].concat()
    };
    let tags: Vec<u8> = tags.flat_map(tag).collect();
    let mut bytes = [&b"II*\0\x08\0\0\0\x0a\0"[..], &tags, &[0; 4]].concat();
    bytes.resize(200 + tile as usize, 7);
    std::fs::write(&path, bytes).unwrap();
    let photo = decode::rgb(&path, true).unwrap();
    assert!((photo.width, photo.height) == (64, 64) && photo.pixels == [7; 64 * 64 * 3]);
}

/// More than the 512 MiB that decoders allow by default.
#[test]
fn a_sound_photo_of_180_megapixels_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.png");
    let size = (13_400, 13_400);
    black(begun(&path, size, png::ColorType::Rgb, png::BitDepth::Eight), size, 3);
    let photo = decode::rgb(&path, true).unwrap();
    assert_eq!((photo.width, photo.height, photo.pixels.len()), (13_400, 13_400, 538_680_000));
}
