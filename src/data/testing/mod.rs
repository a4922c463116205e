//! Small files for the tests of this folder.

use std::path::Path;

use image::{ImageBuffer, RgbImage};

/// An empty file, with the folders above it.
pub fn touch(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, []).unwrap();
}

/// A picture whose every pixel and channel differs from its neighbours.
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
