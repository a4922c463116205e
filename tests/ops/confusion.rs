//! The confusion histogram: counts, exactly.

use picie::device::Dtype;
use picie::device::ops::{ConfusionCount, confusion_count};

use crate::util::{EXACT, On, OpCase, Results, added, below, golden};

struct Given {
    pred: Vec<u16>,
    /// 255: none.
    labels: Vec<u8>,
    classes: usize,
    clusters: usize,
    /// How many at the end are behind the pixels, and do not count.
    behind: usize,
}

impl Given {
    fn new(pred: Vec<usize>, labels: Vec<usize>, classes: usize, clusters: usize) -> Self {
        Given {
            pred: pred.into_iter().map(|p| p as u16).collect(),
            labels: labels.into_iter().map(|y| y as u8).collect(),
            classes,
            clusters,
            behind: 0,
        }
    }

    /// Each value `runs` times in a row, as in pictures; one pixel in eight has no label, and eight
    /// follow that do not count.
    fn picture(pixels: usize, classes: usize, clusters: usize, runs: usize) -> Self {
        let draw = |seed, n| -> Vec<usize> {
            let draws = below(seed, pixels / runs + 1, n);
            (0..pixels).map(|i| draws[i / runs]).chain([0; 8]).collect()
        };
        let mut given = Given::new(draw(2, clusters), draw(1, classes), classes, clusters);
        for (y, skip) in given.labels.iter_mut().zip(below(3, pixels, 8)) {
            *y = if skip == 0 { 255 } else { *y };
        }
        Given { behind: 8, ..given }
    }

    fn case(&self) -> OpCase<'_> {
        let (pixels, clusters) = (self.pred.len() - self.behind, self.clusters);
        let name = format!("confusion of {pixels} pixels, {}×{clusters}", self.classes);
        OpCase::new(name, move |rig| {
            let (pred, labels) = (rig.input("pred", &self.pred), rig.input("labels", &self.labels));
            let part = |len: usize| (0, len - self.behind);
            let ((start, count), (_, labelled)) = (part(pred.len), part(labels.len));
            let a = ConfusionCount {
                counts: rig.adds("counts", self.classes * clusters),
                pred: pred.part(start, count),
                labels: labels.part(start, labelled),
                clusters,
            };
            move |dev| confusion_count(dev, a)
        })
    }

    /// By a plain loop.
    fn plain(&self) -> Results {
        let mut counts = vec![0u32; self.classes * self.clusters];
        let pixels = self.pred.len() - self.behind;
        for (&y, &p) in self.labels.iter().zip(&self.pred).take(pixels).filter(|(y, _)| **y != 255)
        {
            counts[usize::from(y) * self.clusters + usize::from(p)] += 1;
        }
        Results::of([("counts", added(&counts).into())])
    }

    #[track_caller]
    fn compare(&self) {
        self.case().cpu().close(&self.plain(), |_| EXACT);
    }

    /// CUDA against the CPU, which the loop has been compared with.
    #[track_caller]
    fn agree(&self, dtype: Dtype) {
        self.compare();
        self.case().agree(dtype, |_| EXACT);
    }
}

#[test]
fn counts_are_bincounts_and_are_added() {
    let g = golden("confusion");
    let whole = |name: &str| g[name].iter().map(|&v| v as usize).collect::<Vec<_>>();
    let counts: Vec<u32> = g["counts"].iter().map(|&c| c as u32).collect();
    let want = Results::of([("counts", added(&counts).into())]);
    Given::new(whole("pred"), whole("labels"), 4, 7).case().cpu().close(&want, |_| EXACT);
}

#[test]
fn pixels_of_several_pieces_are_counted_once() {
    let len = 3 * (1 << 17) + 5;
    Given::new(below(2, len, 5), below(1, len, 3), 3, 5).compare();
}

#[test]
fn pixels_below_at_and_above_a_thread_s_and_a_block_s_share() {
    for pixels in [1, 7, 8, 9, 2047, 2048, 2049, 10_001] {
        Given::picture(pixels, 5, 7, 1).agree(Dtype::F32);
        Given::picture(pixels, 27, 27, 3).agree(Dtype::F32);
    }
}

#[test]
fn the_entries_of_every_element_type() {
    for dtype in [Dtype::Bf16, Dtype::F16] {
        Given::picture(3001, 5, 7, 5).agree(dtype);
        Given::picture(3001, 171, 300, 1).agree(dtype);
    }
}

#[test]
fn histograms_at_the_edge_of_shared_memory() {
    // 48 KiB hold 12,288 counts. 254 is the last label, and 65,535 the last prediction.
    for (classes, clusters) in [(96, 128), (97, 127), (255, 300), (2, 1 << 16)] {
        Given::picture(5000, classes, clusters, 2).agree(Dtype::F32);
    }
}

#[test]
fn a_block_takes_several_shares_of_many_pixels() {
    // 528 blocks of 2048 pixels take one each, then the first of them a second.
    Given::picture(528 * 2048 + 3000, 3, 2, 40).agree(Dtype::F32);
}

#[test]
fn one_cell_and_no_labels() {
    Given::picture(4099, 1, 1, 1).agree(Dtype::F32);
    for on in On::all() {
        let none = Given::new(vec![3; 100], vec![255; 100], 2, 4);
        none.case().run(on.rig()).close(&none.plain(), |_| EXACT);
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let given = Given::new(vec![0; 5], vec![0; 5], 2, 3);
    // Labels are as many as predictions, and counts are whole classes.
    let sizes = [("pred", "labels"), ("counts", "counts")];
    given.case().refuses_other_sizes("confusion", &sizes);
}
