//! Scores of several looks at one photo, averaged.

use rayon::prelude::*;

use crate::cli::segment::photo::Input;

/// The scores of a look at a photo.
pub struct Look {
    /// Height and width of the map.
    pub size: Input,
    /// (h, w, k).
    pub scores: Vec<f32>,
    /// Whether it is a look at the mirror image.
    pub mirrored: bool,
}

/// Where a row or column of `to` lies among the `from` of a smaller or larger map: two of them, and
/// the weight of the second. Middles of pixels correspond, as in the op `head_predict`.
pub fn between(i: usize, to: usize, from: usize) -> (usize, usize, f32) {
    let at = ((i as f32 + 0.5) * (from as f32 / to as f32) - 0.5).max(0.0);
    let low = (at as usize).min(from - 1);
    (low, (low + 1).min(from - 1), at - low as f32)
}

/// Row `y` of the mean of the looks, resampled bilinearly to `size`: (w, k).
fn row(looks: &[Look], k: usize, y: usize, size: Input) -> Vec<f32> {
    let mut sum = vec![0.0; size.w * k];
    let part = 1.0 / looks.len() as f32;
    for Look { size: from, scores, mirrored } in looks {
        let (top, bottom, down) = between(y, size.h, from.h);
        for (x, sum) in sum.chunks_exact_mut(k).enumerate() {
            let x = if *mirrored { size.w - 1 - x } else { x };
            let (left, right, along) = between(x, size.w, from.w);
            let corner = |y: usize, x: usize| &scores[(y * from.w + x) * k..][..k];
            let corners = [
                (corner(top, left), (1.0 - down) * (1.0 - along)),
                (corner(top, right), (1.0 - down) * along),
                (corner(bottom, left), down * (1.0 - along)),
                (corner(bottom, right), down * along),
            ];
            for (corner, weight) in corners {
                let weight = weight * part;
                sum.iter_mut().zip(corner).for_each(|(sum, score)| *sum += weight * score);
            }
        }
    }
    sum
}

/// The cluster with the highest of its scores (k), the lowest among equals.
pub fn highest(scores: &[f32]) -> u16 {
    let higher = |best: usize, id: usize| if scores[id] > scores[best] { id } else { best };
    (1..scores.len()).fold(0, higher) as u16
}

/// The mean of the looks at `size`: (h, w, k).
pub fn mean(looks: &[Look], k: usize, size: Input) -> Vec<f32> {
    (0..size.h).into_par_iter().flat_map_iter(|y| row(looks, k, y, size)).collect()
}

/// The cluster with the highest mean score of each pixel at `size` (h, w), the lowest among equals.
/// A row is held in memory at a time.
pub fn best(looks: &[Look], k: usize, size: Input) -> Vec<u16> {
    let rows = (0..size.h).into_par_iter();
    rows.flat_map_iter(|y| row(looks, k, y, size).chunks_exact(k).map(highest).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Input = Input { h: 1, w: 2 };
    const LARGE: Input = Input { h: 2, w: 4 };

    fn look(scores: [f32; 4], mirrored: bool) -> Look {
        Look { size: SMALL, scores: scores.to_vec(), mirrored }
    }

    #[test]
    fn scores_are_resampled_and_averaged_where_they_belong() {
        // Two clusters; the left pixel is of the first, the right one of the second.
        let plain = || look([1.0, 0.0, 0.0, 1.0], false);
        let row = [1.0, 0.0, 0.75, 0.25, 0.25, 0.75, 0.0, 1.0];
        assert_eq!(mean(&[plain()], 2, LARGE), [row, row].concat());
        assert_eq!(best(&[plain()], 2, LARGE), [0, 0, 1, 1].repeat(2));
        // The mirror image of the same scene has its first cluster on the right.
        let mirrored = look([0.0, 1.0, 1.0, 0.0], true);
        assert_eq!(mean(&[plain(), mirrored], 2, LARGE), [row, row].concat());
        // A strong look outvotes a weak one, and equals go to the lower number.
        let strong = look([0.0, 3.0, 3.0, 0.0], false);
        assert_eq!(best(&[plain(), strong], 2, SMALL), [1, 0]);
        assert_eq!(best(&[look([0.5; 4], false)], 2, SMALL), [0, 0]);
    }
}
