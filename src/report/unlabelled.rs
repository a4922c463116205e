//! What `picie eval` and `picie baselines` print where there are no labels.

use crate::eval::Unlabelled;
use crate::eval::unlabelled::REACH;
use crate::method::predict::other_size;
use crate::report::table::{plain, spread};

/// The table of `rows`, with mean ± standard deviation where a row has several values, and below it
/// what the columns are. `size` is the side of the network's input.
pub fn unlabelled(rows: &[(String, Vec<Unlabelled>)], images: usize, side: usize) -> String {
    let lines = rows.iter().map(|(name, all)| {
        let cell = |digits, of: fn(&Unlabelled) -> f64| {
            spread(&all.iter().map(of).collect::<Vec<_>>(), digits)
        };
        let borders: Vec<f64> = all.iter().filter_map(|u| u.borders).collect();
        let borders = if borders.is_empty() { "-".to_string() } else { spread(&borders, 1) };
        let [mirror, crop, size] =
            [cell(1, |u| u.mirror), cell(1, |u| u.crop), cell(1, |u| u.size)];
        let [chance, used, largest] =
            [cell(1, |u| u.chance), cell(0, |u| u.used as f64), cell(1, |u| u.largest)];
        vec![name.clone(), mirror, crop, size, borders, chance, used, largest]
    });
    let header = [
        "",
        "mirror\nkept %",
        "crop\nkept %",
        "size\nkept %",
        "borders\non edges %",
        "chance\n%",
        "clusters\nused",
        "largest\n%",
    ];
    let other = other_size(side);
    let table = plain(&header, 1, lines);
    format!(
        "{table}\n\
         {images} images without labels. kept: pixels with the same cluster when the picture is mirrored; when its\n\
         centre, 3/4 of a side, is enlarged to the input; when the input has {other} pixels instead of {side}.\n\
         borders: pixels between two clusters within {REACH} pixels of an edge, the fifth of a picture with the\n\
         steepest luminance. chance: all pixels. One cluster for all pixels keeps everything: see the largest."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_share_is_under_its_title() {
        let one = |mirror, borders| Unlabelled {
            mirror,
            crop: 82.0,
            size: 83.0,
            borders,
            chance: 41.0,
            used: 7,
            largest: 30.5,
        };
        let rows = [
            ("a b".to_string(), vec![one(91.0, None)]),
            ("c".into(), vec![one(80.0, Some(60.0)), one(90.0, None)]),
        ];
        let text = unlabelled(&rows, 5, 128);
        let words = |of: &str| {
            text.lines().find(|l| l.starts_with(of)).unwrap().split_whitespace().collect::<Vec<_>>()
        };
        assert_eq!(words("a b")[2..], ["91.0", "82.0", "83.0", "-", "41.0", "7", "30.5"], "{text}");
        assert_eq!(words("c ")[1..4], ["85.0", "±", "7.1"], "{text}");
        assert_eq!(words("c ")[10..13], ["60.0", "41.0", "±"], "{text}");
        assert!(
            text.contains("5 images without labels") && text.contains("96 pixels instead of 128"),
            "{text}"
        );
    }
}
