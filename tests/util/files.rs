//! Small pictures and label maps in files.

use std::path::Path;

use image::{ImageBuffer, RgbImage};

/// An empty file, with the folders above it.
pub fn touch(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, []).unwrap();
}

/// A picture whose every pixel and channel differs from its neighbors.
pub fn gradient(width: u32, height: u32) -> RgbImage {
    ImageBuffer::from_fn(width, height, |x, y| {
        image::Rgb([x * 37 + y * 11, x * 5 + y * 53 + 90, x * y * 29 + 40].map(|v| v as u8))
    })
}

/// An 8-bit grey PNG of `ids`, with the folders above it.
pub fn write_label(path: &Path, width: usize, height: usize, ids: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::save_buffer(path, ids, width as u32, height as u32, image::ColorType::L8).unwrap();
}

/// A TIFF block of one tag, as EXIF segments and chunks hold it: the orientation.
pub fn orientation_exif(orientation: u8) -> Vec<u8> {
    // Big-endian, directory at byte 8; one entry: tag 0x0112, kind 3 (u16), one value; no further
    // directory.
    let entry = [0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0];
    [&b"MM\0\x2a\0\0\0\x08"[..], &[0, 1], &entry, &[0; 4]].concat()
}

/// A JPEG with an APP1 segment that says how it is to be turned.
pub fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let exif = [&b"Exif\0\0"[..], &orientation_exif(orientation)].concat();
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xFF, 0xE1], &length, &exif, &jpeg[2..]].concat()
}
