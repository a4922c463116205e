//! One colour for each class, as unlike each other as can be, to colour-blind eyes as well.

use std::sync::OnceLock;

/// A colour as (red, green, blue).
pub type Colour = [u8; 3];

/// The first colours: Okabe and Ito's set for colour-blind readers ("Color Universal Design",
/// 2008), without black.
const FIRST: [Colour; 7] = [
    [230, 159, 0],
    [86, 180, 233],
    [0, 158, 115],
    [240, 228, 66],
    [0, 114, 178],
    [213, 94, 0],
    [204, 121, 167],
];

/// The levels of each channel among which further colours are searched.
const LEVELS: [u8; 9] = [0, 32, 64, 96, 128, 160, 192, 224, 255];

/// The number of colours before the set begins anew; nobody tells more apart.
const DISTINCT: usize = 256;

/// Gives `n` colours. The first `m` of them do not depend on `n`, so class 3 has one colour in
/// every picture.
///
/// Each colour after the first seven is the one, among those neither near black nor near white,
/// whose nearest neighbor is farthest to normal, red-blind and green-blind eyes.
pub fn palette(n: usize) -> Vec<Colour> {
    static COLOURS: OnceLock<Vec<Colour>> = OnceLock::new();
    let colours = COLOURS.get_or_init(farthest_first);
    (0..n).map(|i| colours[i % DISTINCT]).collect()
}

fn farthest_first() -> Vec<Colour> {
    let grid = LEVELS
        .iter()
        .flat_map(|&r| LEVELS.iter().flat_map(move |&g| LEVELS.iter().map(move |&b| [r, g, b])));
    // Near black is where pictures are dark, near white where the page is.
    let usable = |seen: &Seen| (0.45..=0.93).contains(&seen[0][0]);
    let candidates: Vec<(Colour, Seen)> =
        grid.map(|c| (c, seen(c))).filter(|(_, s)| usable(s)).collect();
    let mut nearest = vec![f32::INFINITY; candidates.len()];
    let mut colours = Vec::with_capacity(DISTINCT);
    while colours.len() < DISTINCT {
        // NOTE: `max_by` keeps the last of equals, so a tie is the same choice everywhere.
        let far =
            (0..candidates.len()).max_by(|&a, &b| nearest[a].total_cmp(&nearest[b])).unwrap_or(0);
        let colour = FIRST.get(colours.len()).copied().unwrap_or(candidates[far].0);
        let it = seen(colour);
        for (near, (_, other)) in nearest.iter_mut().zip(&candidates) {
            *near = near.min(distance(&it, other));
        }
        colours.push(colour);
    }
    colours
}

/// A colour in OKLab (L, a, b) as normal, red-blind and green-blind eyes see it.
type Seen = [[f32; 3]; 3];

fn seen(colour: Colour) -> Seen {
    // Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color
    // vision deficiency" (2009), severity 1, on linear RGB.
    const RED_BLIND: [[f32; 3]; 3] = [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ];
    const GREEN_BLIND: [[f32; 3]; 3] = [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ];
    let rgb = colour.map(|v| {
        let v = f32::from(v) / 255.0;
        if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
    });
    [oklab(rgb), oklab(times(&RED_BLIND, rgb)), oklab(times(&GREEN_BLIND, rgb))]
}

/// Converts linear RGB to OKLab (Ottosson, "A perceptual color space for image processing", 2020).
fn oklab(rgb: [f32; 3]) -> [f32; 3] {
    const TO_CONES: [[f32; 3]; 3] = [
        [0.412_221_46, 0.536_332_55, 0.051_445_995],
        [0.211_903_5, 0.680_699_5, 0.107_396_96],
        [0.088_302_46, 0.281_718_85, 0.629_978_7],
    ];
    const TO_LAB: [[f32; 3]; 3] = [
        [0.210_454_26, 0.793_617_8, -0.004_072_047],
        [1.977_998_5, -2.428_592_2, 0.450_593_7],
        [0.025_904_037, 0.782_771_77, -0.808_675_77],
    ];
    times(&TO_LAB, times(&TO_CONES, rgb).map(f32::cbrt))
}

fn times(m: &[[f32; 3]; 3], v: [f32; 3]) -> [f32; 3] {
    m.map(|row| row[0] * v[0] + row[1] * v[1] + row[2] * v[2])
}

/// The distance of two colours to normal eyes, or twice the least one to colour-blind eyes if that
/// is less.
///
/// NOTE: without the factor two the search sees little but blue against yellow, and all it finds is
/// blues and browns.
fn distance(a: &Seen, b: &Seen) -> f32 {
    let apart =
        |eye: usize| a[eye].iter().zip(&b[eye]).map(|(x, y)| (x - y) * (x - y)).sum::<f32>().sqrt();
    apart(0).min(2.0 * apart(1)).min(2.0 * apart(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closest(colours: &[Colour]) -> f32 {
        let pairs = (0..colours.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
        pairs
            .map(|(i, j)| distance(&seen(colours[i]), &seen(colours[j])))
            .fold(f32::INFINITY, f32::min)
    }

    #[test]
    fn white_black_and_grey_are_where_oklab_says() {
        // White is (1, 0, 0) by definition; the published matrices are rounded to f32.
        for (colour, light) in [([255; 3], 1.0), ([0; 3], 0.0)] {
            for eye in seen(colour) {
                assert!(
                    (eye[0] - light).abs() <= 1e-3 && eye[1].abs() <= 1e-3 && eye[2].abs() <= 1e-3,
                    "{eye:?}"
                );
            }
        }
        // Pure red and pure green differ less to green-blind eyes than to normal ones.
        let (red, green) = (seen([255, 0, 0]), seen([0, 200, 0]));
        let apart = |e: usize| (1..3).map(|i| (red[e][i] - green[e][i]).powi(2)).sum::<f32>();
        assert!(apart(2) <= 0.5 * apart(0));
    }

    #[test]
    fn colours_are_apart_and_do_not_depend_on_their_number() {
        // 0.02 in OKLab is the usual just noticeable difference; 27 classes are five times that
        // apart to normal eyes and half as much to colour-blind ones.
        assert!(closest(&palette(27)) >= 0.10, "{}", closest(&palette(27)));
        assert!(closest(&palette(DISTINCT)) > 0.0, "{}", closest(&palette(DISTINCT)));
        assert_eq!(palette(9), palette(300)[..9]);
        assert_eq!(palette(300).len(), 300);
    }
}
