//! What can be said of a prediction without labels: whether pixels keep their cluster when the
//! picture changes and its content does not, and whether clusters end where the picture has edges.
//!
//! None of it says that clusters mean something, and a constant prediction keeps every pixel: so
//! the number of clusters in use and the share of the largest stand beside it.

use serde::{Deserialize, Serialize};

/// The distance from an edge, along rows and columns, up to which a pixel counts as on it.
pub const REACH: usize = 2;
/// One in this many pixels of a picture, those of the steepest luminance, is an edge.
pub const EDGES: usize = 5;

/// A change of the picture under which pixels should keep their cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The picture is mirrored.
    Mirror,
    /// The centre of the picture is enlarged to the input's size.
    Crop,
    /// The whole picture is seen at another size.
    Size,
}

/// The quality of a prediction without labels. All shares are in percent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unlabelled {
    /// The share of pixels that keep their cluster under [`Change::Mirror`].
    pub mirror: f64,
    /// The share of pixels that keep their cluster under [`Change::Crop`].
    pub crop: f64,
    /// The share of pixels that keep their cluster under [`Change::Size`].
    pub size: f64,
    /// The share of pixels at a border between clusters that are on an edge of the picture; `None`
    /// where there is no border.
    pub borders: Option<f64>,
    /// The share of all pixels that are on an edge of the picture, which is what borders drawn at
    /// random reach.
    pub chance: f64,
    /// The number of clusters that some pixel has.
    pub used: usize,
    /// The share of pixels in the largest cluster.
    pub largest: f64,
}

/// A share that is being counted.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    part: u64,
    whole: u64,
}

impl Share {
    fn add(&mut self, part: usize, whole: usize) {
        self.part += part as u64;
        self.whole += whole as u64;
    }

    fn percent(self) -> Option<f64> {
        (self.whole > 0).then(|| 100.0 * self.part as f64 / self.whole as f64)
    }
}

/// Sums over pictures that [`Unlabelled`] is made of.
#[derive(Clone, Debug)]
pub struct Tally {
    kept: [Share; 3],
    borders: Share,
    near: Share,
    /// The number of pixels of each cluster (K).
    counts: Vec<u64>,
}

impl Tally {
    pub fn new(clusters: usize) -> Self {
        Tally {
            kept: Default::default(),
            borders: Share::default(),
            near: Share::default(),
            counts: vec![0; clusters],
        }
    }

    /// Adds the clusters of the same pixels before and after a change, two slices of one length.
    pub fn compare(&mut self, change: Change, before: &[u16], after: &[u16]) {
        assert_eq!(before.len(), after.len());
        self.kept[change as usize]
            .add(before.iter().zip(after).filter(|(a, b)| a == b).count(), before.len());
    }

    /// Adds the clusters (H, `width`) of an unchanged picture, each below K; `near` (H, `width`) is
    /// [`near_edges`] of it.
    pub fn add(&mut self, clusters: &[u16], near: &[bool], width: usize) {
        assert_eq!(clusters.len(), near.len());
        clusters.iter().for_each(|&k| self.counts[usize::from(k)] += 1);
        let border = borders(clusters, width);
        let both = border.iter().zip(near).filter(|(b, n)| **b && **n).count();
        self.borders.add(both, border.iter().filter(|b| **b).count());
        self.near.add(near.iter().filter(|n| **n).count(), near.len());
    }

    /// Computes the shares; 0 where no pixel was added.
    pub fn finish(&self) -> Unlabelled {
        let [mirror, crop, size] = self.kept.map(|share| share.percent().unwrap_or(0.0));
        let largest = self.counts.iter().max().copied().unwrap_or(0);
        let largest = Share { part: largest, whole: self.counts.iter().sum() };
        Unlabelled {
            mirror,
            crop,
            size,
            borders: self.borders.percent(),
            chance: self.near.percent().unwrap_or(0.0),
            used: self.counts.iter().filter(|&&count| count > 0).count(),
            largest: largest.percent().unwrap_or(0.0),
        }
    }
}

/// Marks the pixels (H, `width`) with a neighbor in their row or column that has another cluster.
fn borders(clusters: &[u16], width: usize) -> Vec<bool> {
    let mut border = vec![false; clusters.len()];
    for i in 0..clusters.len() {
        let right = ((i + 1) % width > 0).then_some(i + 1);
        let below = (i + width < clusters.len()).then_some(i + width);
        for j in [right, below].into_iter().flatten().filter(|&j| clusters[i] != clusters[j]) {
            (border[i], border[j]) = (true, true);
        }
    }
    border
}

/// Marks the pixels (H, `width`) of a picture, u8 (H, `width`, 3), that are an edge or at most
/// [`REACH`] pixels from one.
///
/// Edges are the fifth of the pixels where the gradient of luminance (Rec. 601), after a binomial
/// blur of 5 × 5 pixels, is largest; a gradient of 0 is none.
pub fn near_edges(picture: &[u8], width: usize) -> Vec<bool> {
    let luminance = picture
        .as_chunks::<3>()
        .0
        .iter()
        .map(|&[r, g, b]| 299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b));
    let luminance: Vec<f32> = luminance.map(|l| l as f32).collect();
    let at = |map: &[f32], x: usize, y: usize| map[y * width + x];
    let blur = |map: &[f32], down: bool| {
        along(map, width, down, 2, |near| {
            let weights = [1.0, 4.0, 6.0, 4.0, 1.0f32];
            near.iter().zip(weights).map(|(v, w)| v * w).sum::<f32>() / 16.0
        })
    };
    let smooth = blur(&blur(&luminance, false), true);
    let height = smooth.len() / width.max(1);
    let slope = |i: usize| {
        let (x, y) = (i % width, i / width);
        let dx = at(&smooth, (x + 1).min(width - 1), y) - at(&smooth, x.saturating_sub(1), y);
        let dy = at(&smooth, x, (y + 1).min(height - 1)) - at(&smooth, x, y.saturating_sub(1));
        dx * dx + dy * dy
    };
    let slopes: Vec<f32> = (0..smooth.len()).map(slope).collect();
    let mut sorted = slopes.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let least = sorted.get((slopes.len() / EDGES).saturating_sub(1)).copied().unwrap_or(0.0);
    let edges: Vec<bool> = slopes.iter().map(|&s| s >= least && s > 0.0).collect();
    let spread =
        |map: &[bool], down: bool| along(map, width, down, REACH, |near| near.contains(&true));
    spread(&spread(&edges, false), true)
}

/// Applies `f` to the 2·`reach` + 1 pixels around each pixel in its row, or with `down` in its
/// column; the outermost pixels stand for what lies outside of the map.
fn along<T: Copy>(
    map: &[T],
    width: usize,
    down: bool,
    reach: usize,
    f: impl Fn(&[T]) -> T,
) -> Vec<T> {
    let (len, step) = if down { (map.len() / width.max(1), width) } else { (width, 1) };
    let mut around = Vec::with_capacity(2 * reach + 1);
    let of = |i: usize| {
        let here = if down { i / width } else { i % width };
        let start = i - here * step;
        around.clear();
        around.extend(
            (0..=2 * reach)
                .map(|o| map[start + (here + o).saturating_sub(reach).min(len - 1) * step]),
        );
        f(&around)
    };
    (0..map.len()).map(of).collect()
}

/// Mirrors a map (H, `width`) of `channels` elements a pixel left to right.
pub fn mirror<T: Copy>(map: &[T], width: usize, channels: usize) -> Vec<T> {
    let rows = map.chunks_exact(width * channels);
    rows.flat_map(|row| row.chunks_exact(channels).rev().flatten().copied()).collect()
}

/// Cuts out the square window of `len` pixels a side in the middle of a map (`side`, `side`) of
/// `channels` elements a pixel.
pub fn centre<T: Copy>(map: &[T], side: usize, len: usize, channels: usize) -> Vec<T> {
    let from = (side - len) / 2;
    let rows = map.chunks_exact(side * channels).skip(from).take(len);
    rows.flat_map(|row| row[from * channels..][..len * channels].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Black left of column `at`, white from there on.
    fn halves(side: usize, at: usize) -> Vec<u8> {
        (0..side * side).flat_map(|i| [if i % side < at { 0 } else { 255 }; 3]).collect()
    }

    fn clusters(side: usize, of: impl Fn(usize, usize) -> u16) -> Vec<u16> {
        (0..side * side).map(|i| of(i % side, i / side)).collect()
    }

    /// The tally of one map that no change was tried on.
    fn still(map: &[u16], picture: &[u8], side: usize) -> Unlabelled {
        let mut tally = Tally::new(4);
        tally.add(map, &near_edges(picture, side), side);
        tally.finish()
    }

    #[test]
    fn both_sides_of_a_border_are_on_it() {
        let map = [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0];
        let want = [0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 1].map(|b| b == 1);
        assert_eq!(borders(&map, 4), want);
    }

    #[test]
    fn borders_on_the_edge_are_told_from_borders_beside_it() {
        let picture = halves(20, 10);
        // The blur reaches 2 pixels from the step and the difference 1 more: columns 7 to 12 slope,
        // the steepest 4 of 20 are edges.
        let on = still(&clusters(20, |x, _| u16::from(x >= 10)), &picture, 20);
        assert_eq!((on.borders, on.chance, on.used, on.largest), (Some(100.0), 40.0, 2, 50.0));
        let beside = still(&clusters(20, |x, _| u16::from(x >= 3)), &picture, 20);
        assert_eq!((beside.borders, beside.chance), (Some(0.0), 40.0));
        // Rows as columns: the border crosses the edge, and is on it as often as any pixel.
        let across = still(&clusters(20, |_, y| u16::from(y >= 10)), &picture, 20);
        assert_eq!((across.borders, across.chance), (Some(40.0), 40.0));
    }

    #[test]
    fn a_picture_without_contrast_has_no_edge() {
        let flat = still(&clusters(8, |x, _| x as u16 / 2), &[77; 8 * 8 * 3], 8);
        assert_eq!((flat.borders, flat.chance, flat.used, flat.largest), (Some(0.0), 0.0, 4, 25.0));
    }

    #[test]
    fn a_constant_prediction_keeps_everything_and_shows_that_it_is_one() {
        let mut tally = Tally::new(4);
        let map = clusters(8, |_, _| 3);
        for change in [Change::Mirror, Change::Crop, Change::Size] {
            tally.compare(change, &map, &map);
        }
        tally.add(&map, &near_edges(&halves(8, 4), 8), 8);
        let got = tally.finish();
        assert_eq!((got.mirror, got.crop, got.size), (100.0, 100.0, 100.0));
        assert_eq!((got.used, got.largest, got.borders), (1, 100.0, None));
    }

    #[test]
    fn each_change_has_its_own_share() {
        let mut tally = Tally::new(4);
        tally.compare(Change::Mirror, &[0, 1, 2, 3], &[0, 1, 2, 0]);
        tally.compare(Change::Crop, &[0, 1], &[0, 0]);
        tally.compare(Change::Crop, &[0, 1], &[1, 0]);
        tally.compare(Change::Size, &[3], &[2]);
        let got = tally.finish();
        assert_eq!((got.mirror, got.crop, got.size), (75.0, 25.0, 0.0));
    }

    #[test]
    fn maps_are_mirrored_and_cut_pixel_by_pixel() {
        assert_eq!(mirror(&[1, 2, 3, 4, 5, 6], 3, 1), [3, 2, 1, 6, 5, 4]);
        assert_eq!(mirror(&[1, 2, 3, 4], 2, 2), [3, 4, 1, 2]);
        let map: Vec<u8> = (0..32).collect();
        assert_eq!(centre(&map, 4, 2, 2), [10, 11, 12, 13, 18, 19, 20, 21]);
    }
}
