//! A sheet of nearest neighbors: a row a query, first its own pixel, then the pixels most like it.

use image::imageops::{FilterType, crop_imm, overlay as paste, resize};
use image::{Rgb as Pixel, RgbImage};

use crate::report::palette::Colour;
use crate::report::sheet::{GAP, INK, PAGE};
use crate::report::text;

/// A picture with a pixel that is to be marked.
pub struct Marked {
    pub picture: RgbImage,
    /// The pixel (x, y).
    pub at: (usize, usize),
    pub caption: String,
}

/// A row of the sheet: a query, and the pixels most like it.
pub struct QueryRow {
    pub title: String,
    pub query: Marked,
    pub neighbors: Vec<Marked>,
}

/// The side of a crop on the page.
const CELL: u32 = 160;
/// The number of neighbors side by side; more go on in the next line.
const COLUMNS: usize = 10;
/// The distance in pixels of the mark, a frame of white in black, from its pixel.
const MARK: i64 = 7;
const WHITE: Colour = [255; 3];
const BLACK: Colour = [0; 3];

/// Draws the sheet.
pub fn sheet(rows: &[QueryRow]) -> RgbImage {
    let columns = rows.iter().map(|row| row.neighbors.len()).max().unwrap_or(0).min(COLUMNS) as u32;
    let cells = GAP + (1 + columns) * (CELL + GAP);
    let width = rows.iter().map(|row| text::width(&row.title) + 2 * GAP).fold(cells, u32::max);
    let line = CELL + text::HEIGHT + GAP;
    let lines = |row: &QueryRow| row.neighbors.len().div_ceil(COLUMNS).max(1) as u32;
    let height = GAP + rows.iter().map(|row| text::HEIGHT + lines(row) * line + GAP).sum::<u32>();
    let mut page = RgbImage::from_pixel(width, height, Pixel(PAGE));
    let mut y = GAP;
    for row in rows {
        text::draw(&mut page, GAP, y, &row.title, INK);
        y += text::HEIGHT;
        put(&mut page, GAP, y, &row.query);
        for (i, neighbor) in row.neighbors.iter().enumerate() {
            let (x, down) =
                (GAP + (1 + (i % COLUMNS) as u32) * (CELL + GAP), (i / COLUMNS) as u32 * line);
            put(&mut page, x, y + down, neighbor);
        }
        y += lines(row) * line + GAP;
    }
    page
}

/// Draws a marked picture and its caption at (x, y) of the page.
fn put(page: &mut RgbImage, x: u32, y: u32, marked: &Marked) {
    paste(page, &crop(marked), x.into(), y.into());
    text::draw(page, x, y + CELL, &marked.caption, INK);
}

/// Cuts out the half of a picture around its pixel, moved inwards at the edges, with the pixel
/// marked.
fn crop(marked: &Marked) -> RgbImage {
    let (picture, (x, y)) = (&marked.picture, marked.at);
    let side = (picture.width().min(picture.height()) / 2).max(1);
    let from = |at: usize, len: u32| (at as u32).saturating_sub(side / 2).min(len - side);
    let (left, top) = (from(x, picture.width()), from(y, picture.height()));
    let part = crop_imm(picture, left, top, side, side).to_image();
    let mut cell = resize(&part, CELL, CELL, FilterType::CatmullRom);
    let middle = |at: usize, from: u32| {
        ((2 * (at as i64 - i64::from(from)) + 1) * i64::from(CELL)) / i64::from(2 * side)
    };
    let (x, y) = (middle(x, left), middle(y, top));
    for (far, colour) in [(MARK - 2, BLACK), (MARK - 1, WHITE), (MARK, WHITE), (MARK + 1, BLACK)] {
        for along in -far..=far {
            for (x, y) in [
                (x + along, y - far),
                (x + along, y + far),
                (x - far, y + along),
                (x + far, y + along),
            ] {
                let inside = |v: i64| (0..i64::from(CELL)).contains(&v);
                if inside(x) && inside(y) {
                    cell.put_pixel(x as u32, y as u32, Pixel(colour));
                }
            }
        }
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(at: (usize, usize)) -> Marked {
        let picture =
            RgbImage::from_fn(32, 32, |x, _| Pixel(if x < 16 { [200, 0, 0] } else { [0, 0, 200] }));
        Marked { picture, at, caption: "0.99".into() }
    }

    #[test]
    fn a_crop_is_half_the_picture_with_its_pixel_in_the_frame() {
        let cell = crop(&marked((16, 16)));
        // Columns 8 to 23: pixel 16 is the ninth, and its middle at 8.5 · 10.
        let white: Vec<u32> =
            cell.enumerate_pixels().filter(|p| p.2.0 == WHITE).map(|p| p.0).collect();
        assert_eq!((white.iter().min(), white.iter().max()), (Some(&(85 - 7)), Some(&(85 + 7))));
        assert_eq!(
            (cell.get_pixel(10, 85).0, cell.get_pixel(150, 85).0),
            ([200, 0, 0], [0, 0, 200])
        );
        // At a corner the frame is cut, not the picture.
        let cell = crop(&marked((0, 31)));
        assert_eq!((cell.width(), cell.get_pixel(5, 155).0), (CELL, [200, 0, 0]));
        assert!(cell.pixels().any(|p| p.0 == WHITE));
    }

    #[test]
    fn a_row_for_each_query_and_more_lines_where_it_is_long() {
        let row = |n: usize| QueryRow {
            title: "a:1,2".into(),
            query: marked((3, 3)),
            neighbors: (0..n).map(|i| marked((i, i))).collect(),
        };
        let (line, head) = (CELL + text::HEIGHT + GAP, text::HEIGHT + GAP);
        let short = sheet(&[row(2), row(0)]);
        assert_eq!(
            (short.width(), short.height()),
            (GAP + 3 * (CELL + GAP), GAP + 2 * (head + line))
        );
        let long = sheet(&[row(11)]);
        assert_eq!((long.width(), long.height()), (GAP + 11 * (CELL + GAP), GAP + head + 2 * line));
        assert!(sheet(&[]).width() > 0);
    }
}
