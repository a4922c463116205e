//! Text in pictures: Noto Sans Mono, rasterised beforehand.

use image::{Rgb as Pixel, RgbImage};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use crate::report::palette::Colour;

const SIZE: RasterHeight = RasterHeight::Size20;
const WEIGHT: FontWeight = FontWeight::Regular;

/// Height of a line in pixels.
pub const HEIGHT: u32 = SIZE.val() as u32;

/// Width of `text` in pixels.
pub fn width(text: &str) -> u32 {
    (text.chars().count() * get_raster_width(WEIGHT, SIZE)) as u32
}

/// Writes `text` with its top left corner at (x, y). A letter the font lacks is a question mark;
/// what does not fit into the picture is cut off.
pub fn draw(picture: &mut RgbImage, x: u32, y: u32, text: &str, colour: Colour) {
    for (i, letter) in text.chars().enumerate() {
        let Some(raster) =
            get_raster(letter, WEIGHT, SIZE).or_else(|| get_raster('?', WEIGHT, SIZE))
        else {
            continue;
        };
        let left = x + (i * raster.width()) as u32;
        for (row, y) in raster.rows().zip(y..picture.height()) {
            for (&ink, x) in row.iter().zip(left..picture.width()) {
                let Pixel(under) = picture.get_pixel_mut(x, y);
                *under = mix(*under, colour, u32::from(ink));
            }
        }
    }
}

/// `over` on `under` with the opacity `alpha` / 255.
pub fn mix(under: Colour, over: Colour, alpha: u32) -> Colour {
    let one =
        |u: u8, o: u8| ((u32::from(u) * (255 - alpha) + u32::from(o) * alpha + 127) / 255) as u8;
    [one(under[0], over[0]), one(under[1], over[1]), one(under[2], over[2])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_leave_ink_where_they_stand_and_are_cut_at_the_edge() {
        let (w, h) = (width("HI") + 9, HEIGHT + 6);
        let mut picture = RgbImage::from_pixel(w, h, Pixel([255; 3]));
        draw(&mut picture, 4, 3, "HI", [0; 3]);
        let inked = |x: u32, y: u32| picture.get_pixel(x, y).0 != [255; 3];
        let ink = (0..w * h).filter(|i| inked(i % w, i / w)).count();
        assert!((20..200).contains(&ink), "{ink}");
        assert!((0..w * h).filter(|i| inked(i % w, i / w)).all(|i| i % w >= 4 && i / w >= 3));
        draw(&mut picture, w - 3, h - 5, "wide", [0; 3]);
    }

    #[test]
    fn mixing_reaches_both_ends() {
        assert_eq!(
            (mix([1, 2, 3], [200, 100, 0], 0), mix([1, 2, 3], [200, 100, 0], 255)),
            ([1, 2, 3], [200, 100, 0])
        );
        assert_eq!(mix([0; 3], [200; 3], 51), [40; 3]);
    }
}
