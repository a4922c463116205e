//! A sheet of many photos with their segments, small, and a legend.

use image::imageops::{overlay as paste, thumbnail};
use image::{Rgb as Pixel, RgbImage};

use crate::base::Result;
use crate::report::palette::Colour;
use crate::report::pictures::{check, overlay};
use crate::report::sheet::{GAP, INK, PAGE, legend};
use crate::report::text;

/// The long side of a small picture, in pixels.
pub const SIDE: u32 = 240;

/// A photo and its segments, small.
pub struct Small {
    title: String,
    photo: RgbImage,
    segments: RgbImage,
}

impl Small {
    /// Makes a photo with its clusters (H, W) small.
    pub fn new(
        title: String,
        photo: &RgbImage,
        labels: &[u16],
        colours: &[Colour],
    ) -> Result<Self> {
        let (width, height) = photo.dimensions();
        check("sheet", "labels", labels.len(), (width * height) as usize)?;
        let scale = f64::from(SIDE) / f64::from(width.max(height));
        let side = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
        let (w, h) = (side(width), side(height));
        let photo = thumbnail(photo, w, h);
        // The label at the middle of each pixel.
        let at = |i: u32, few: u32, all: u32| {
            ((2 * u64::from(i) + 1) * u64::from(all) / (2 * u64::from(few))) as usize
        };
        let label = |x, y| labels[at(y, h, height) * width as usize + at(x, w, width)];
        let labels: Vec<u16> =
            (0..h).flat_map(|y| (0..w).map(move |x| (x, y))).map(|(x, y)| label(x, y)).collect();
        let segments = overlay(&photo, &labels, colours)?;
        Ok(Small { title, photo, segments })
    }
}

/// Draws the photos in one to three columns, each beside its segments and below its title, and a
/// legend of the clusters `shown` by their `entries` (K).
pub fn contact(photos: &[Small], shown: &[usize], entries: &[(String, Colour)]) -> RgbImage {
    let columns = match photos.len() {
        0..4 => 1,
        4..16 => 2,
        _ => 3,
    };
    let cell = 2 * SIDE + 2 * GAP;
    let width = GAP + columns as u32 * cell;
    let rows: Vec<&[Small]> = photos.chunks(columns).collect();
    let tall = |row: &[Small]| row.iter().map(|s| s.photo.height()).max().unwrap_or(0);
    let below = legend(shown, entries, width);
    let height = rows.iter().map(|row| text::HEIGHT + tall(row) + GAP).sum::<u32>();
    let mut page = RgbImage::from_pixel(width, GAP + height + below.height(), Pixel(PAGE));
    let mut y = GAP;
    for row in rows {
        for (i, Small { title, photo, segments }) in row.iter().enumerate() {
            let x = GAP + i as u32 * cell;
            text::draw(&mut page, x, y, &fitting(title, cell - GAP), INK);
            let top = i64::from(y + text::HEIGHT);
            paste(&mut page, photo, i64::from(x), top);
            paste(&mut page, segments, i64::from(x + SIDE + GAP / 2), top);
        }
        y += text::HEIGHT + tall(row) + GAP;
    }
    paste(&mut page, &below, 0, i64::from(y));
    page
}

/// The end of a text, as much as fits into `width` pixels: of a path, that tells most.
fn fitting(title: &str, width: u32) -> String {
    let letters: Vec<char> = title.chars().collect();
    let most = (width / text::width("x")) as usize;
    if letters.len() <= most {
        return title.into();
    }
    let end: String = letters[letters.len() + 1 - most..].iter().collect();
    format!("…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::palette::palette;

    #[test]
    fn photos_lie_beside_their_segments_over_a_legend() {
        let colours = palette(3);
        let photo = RgbImage::from_pixel(4, 2, Pixel([0; 3]));
        let labels = [0, 0, 2, 2].repeat(2);
        let small = || Small::new("a".into(), &photo, &labels, &colours).unwrap();
        assert_eq!(small().photo.dimensions(), (SIDE, SIDE / 2));
        let entries: Vec<_> = colours.iter().map(|c| ("name".to_string(), *c)).collect();
        let page = contact(&[small()], &[0, 2], &entries);
        let has = |colour: Colour| page.pixels().filter(|pixel| pixel.0 == colour).count() > 100;
        assert!(has(colours[0]) && has(colours[2]) && !has(colours[1]));
        let many: Vec<Small> = (0..17).map(|_| small()).collect();
        let wide = contact(&many, &[0], &entries);
        assert_eq!(wide.width(), GAP + 3 * (2 * SIDE + 2 * GAP));
        assert!(contact(&[], &[], &entries).height() > 0);
        assert!(Small::new("a".into(), &photo, &labels[1..], &colours).is_err());
        let long = fitting(&"0123456789".repeat(10), 200);
        assert!(text::width(&long) <= 200 && long.starts_with('…') && long.ends_with('9'));
    }
}
