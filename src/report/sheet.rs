//! A sheet of validation images: image | a prediction a method | ground truth, with titles and a
//! legend.

use image::imageops::{FilterType, overlay as paste, resize};
use image::{Rgb as Pixel, RgbImage};

use crate::base::Result;
use crate::report::palette::Colour;
use crate::report::pictures::{NONE, check, overlay};
use crate::report::text;

/// A row of the sheet: one image. Labels are (H, W) class numbers or [`NONE`].
pub struct SheetRow {
    pub image: RgbImage,
    /// The prediction of each method.
    pub predictions: Vec<Vec<u16>>,
    pub truth: Option<Vec<u16>>,
}

pub(super) const PAGE: Colour = [250; 3];
pub(super) const INK: Colour = [30; 3];
pub(super) const GAP: u32 = 10;
/// The width below which an image is shown enlarged, by a whole factor.
const CELL: u32 = 240;

/// Draws the sheet of `rows`; `methods` are the titles of the predictions, and the legend has the
/// classes that occur, of `entries` (C), their names and
/// colours. The last column is there where some row has a truth.
pub fn sheet(
    rows: &[SheetRow],
    methods: &[String],
    entries: &[(String, Colour)],
) -> Result<RgbImage> {
    let colours: Vec<Colour> = entries.iter().map(|(_, colour)| *colour).collect();
    let mut cells: Vec<Vec<RgbImage>> = Vec::with_capacity(rows.len());
    for row in rows {
        let pixels = (row.image.width() * row.image.height()) as usize;
        check("sheet", "predictions", row.predictions.len(), methods.len())?;
        let mut line = vec![enlarge(&row.image)];
        for labels in row.predictions.iter().chain(&row.truth) {
            check("sheet", "labels", labels.len(), pixels)?;
            line.push(overlay(&line[0], &spread(labels, &row.image), &colours)?);
        }
        cells.push(line);
    }
    let columns = cells.iter().map(Vec::len).max().unwrap_or(0);
    let titles = ["image"]
        .into_iter()
        .chain(methods.iter().map(|name| &**name))
        .chain(["ground truth"])
        .take(columns);
    let cell_w = cells.iter().map(|line| line[0].width()).max().unwrap_or(CELL);
    let cell_w = titles.clone().map(text::width).fold(cell_w, u32::max);
    let width = GAP + columns.max(1) as u32 * (cell_w + GAP);
    let legend = legend(&occurring(rows, entries.len()), entries, width);
    let height = GAP
        + text::HEIGHT
        + cells.iter().map(|line| line[0].height() + GAP).sum::<u32>()
        + legend.height();

    let mut page = RgbImage::from_pixel(width, height, Pixel(PAGE));
    for (i, title) in titles.enumerate() {
        text::draw(&mut page, GAP + i as u32 * (cell_w + GAP), GAP / 2, title, INK);
    }
    let mut y = GAP + text::HEIGHT;
    for line in &cells {
        for (i, cell) in line.iter().enumerate() {
            paste(&mut page, cell, i64::from(GAP + i as u32 * (cell_w + GAP)), i64::from(y));
        }
        y += line[0].height() + GAP;
    }
    paste(&mut page, &legend, 0, i64::from(y));
    Ok(page)
}

/// The whole factor by which an image is enlarged.
fn factor(image: &RgbImage) -> u32 {
    CELL.div_ceil(image.width().max(1)).max(1)
}

/// Enlarges an image by its whole factor.
fn enlarge(image: &RgbImage) -> RgbImage {
    let f = factor(image);
    if f == 1 {
        image.clone()
    } else {
        resize(image, f * image.width(), f * image.height(), FilterType::CatmullRom)
    }
}

/// Enlarges the labels (H, W) of `image` as the image is, to (f·H, f·W), by repeating each.
fn spread(labels: &[u16], image: &RgbImage) -> Vec<u16> {
    let (f, w, h) = (factor(image) as usize, image.width() as usize, image.height() as usize);
    (0..f * h).flat_map(|y| (0..f * w).map(move |x| labels[y / f * w + x / f])).collect()
}

/// Lists the classes below `classes` that some pixel of `rows` has.
fn occurring(rows: &[SheetRow], classes: usize) -> Vec<usize> {
    let mut occurs = vec![false; classes];
    for &label in rows.iter().flat_map(|row| row.predictions.iter().chain(&row.truth).flatten()) {
        if let Some(seen) = occurs.get_mut(usize::from(label)) {
            *seen = label != NONE;
        }
    }
    (0..classes).filter(|&c| occurs[c]).collect()
}

/// Draws the legend: swatches and names in as many columns as fit into `width`.
pub(super) fn legend(classes: &[usize], entries: &[(String, Colour)], width: u32) -> RgbImage {
    let swatch = text::HEIGHT - 6;
    let entry =
        classes.iter().map(|&c| text::width(&entries[c].0)).max().unwrap_or(0) + swatch + 3 * GAP;
    let columns = (width.saturating_sub(GAP) / entry).clamp(1, classes.len().max(1) as u32);
    let line = text::HEIGHT + 4;
    let lines = (classes.len() as u32).div_ceil(columns);
    let mut picture = RgbImage::from_pixel(width, lines * line + GAP, Pixel(PAGE));
    for (i, &class) in classes.iter().enumerate() {
        // Down the columns, as a list is read.
        let (x, y) = (GAP + i as u32 / lines * entry, i as u32 % lines * line);
        paste(
            &mut picture,
            &RgbImage::from_pixel(swatch, swatch, Pixel(entries[class].1)),
            x.into(),
            i64::from(y) + 3,
        );
        text::draw(&mut picture, x + swatch + GAP, y, &entries[class].0, INK);
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::palette::palette;

    fn names(n: usize) -> Vec<(String, Colour)> {
        palette(n).into_iter().enumerate().map(|(i, c)| (format!("class {i}"), c)).collect()
    }

    fn one() -> Vec<String> {
        vec!["prediction".into()]
    }

    #[test]
    fn a_sheet_has_its_columns_and_a_legend_of_what_occurs() {
        let row = |truth| SheetRow {
            image: RgbImage::new(5, 3),
            predictions: vec![[0, 1, 1, 2, NONE].repeat(3)],
            truth,
        };
        let truth: Vec<u16> = (0..15).map(|i| if i == 5 + 4 { 4 } else { 0 }).collect();
        let (with, without) = (row(Some(truth.clone())), row(None));
        assert_eq!(occurring(&[with], 5), [0, 1, 2, 4]);
        let two = sheet(&[without], &one(), &names(5)).unwrap();
        let three = sheet(&[row(Some(truth))], &one(), &names(5)).unwrap();
        assert_eq!(two.width(), GAP + 2 * (240 + GAP));
        assert_eq!(three.width(), GAP + 3 * (240 + GAP));
        // The middle of pixel (4, 1) of the truth is tinted with class 4's colour over black.
        let (x, y) = (GAP + 2 * (240 + GAP) + 4 * 48 + 24, GAP + text::HEIGHT + 48 + 24);
        assert_eq!(
            three.get_pixel(x, y).0,
            overlay(&RgbImage::new(1, 1), &[4], &palette(5)).unwrap().get_pixel(0, 0).0
        );
        let swatches =
            |p: &RgbImage, c: usize| p.pixels().filter(|q| q.0 == palette(5)[c]).count() > 100;
        assert!(swatches(&three, 4) && !swatches(&two, 4) && swatches(&two, 2));
    }

    #[test]
    fn odd_sheets_are_pictures_too() {
        assert!(sheet(&[], &[], &[]).unwrap().height() > 0);
        let tall = SheetRow {
            image: RgbImage::new(300, 20),
            predictions: vec![vec![NONE; 6000]],
            truth: None,
        };
        let flat =
            SheetRow { image: RgbImage::new(7, 2), predictions: vec![vec![3; 14]], truth: None };
        assert_eq!(sheet(&[tall, flat], &one(), &names(2)).unwrap().width(), GAP + 2 * (300 + GAP));
        let wrong =
            SheetRow { image: RgbImage::new(4, 4), predictions: vec![vec![0; 15]], truth: None };
        assert!(sheet(&[wrong], &one(), &names(2)).is_err());
    }

    #[test]
    fn a_column_for_each_method_as_wide_as_its_title() {
        let row = || SheetRow {
            image: RgbImage::new(5, 3),
            predictions: vec![vec![0; 15], vec![1; 15]],
            truth: None,
        };
        let methods =
            ["picie".to_string(), "a run with a name that is wider than its picture".to_string()];
        let page = sheet(&[row()], &methods, &names(2)).unwrap();
        assert_eq!(page.width(), GAP + 3 * (text::width(&methods[1]) + GAP));
        assert!(sheet(&[row()], &methods[..1], &names(2)).is_err());
    }
}
