//! Pixel accuracy and mean intersection over union of a matched confusion, in percent.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};
use crate::eval::{ClassOf, Confusion};

/// The scores of one class. Only labelled pixels count anywhere, so `predicted` leaves out what was
/// predicted on ignored pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// Pixels of this class in the labels.
    pub labelled: u64,
    /// Pixels of this class in the prediction.
    pub predicted: u64,
    /// Pixels of this class in both.
    pub correct: u64,
    /// Intersection over union, correct / (labelled + predicted − correct), in percent; `None` for
    /// a class in neither, 0 for one that occurs in the prediction alone.
    pub iou: Option<f64>,
    /// Accuracy, correct / labelled, in percent; `None` for a class not in the labels.
    pub acc: Option<f64>,
}

/// The scores of one part of the classes, such as stuff or things.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartScore {
    pub name: String,
    /// Pixels labelled with a class of the part.
    pub labelled: u64,
    /// The share of those pixels that is predicted right; predicting a class outside the part is as
    /// wrong as one inside.
    pub acc: Option<f64>,
    /// Mean over the part's classes of the IoU of the *full* matrix, so pixels of the other part
    /// that were predicted as a class of this one still lower it. Classes in neither labels nor
    /// prediction are left out.
    pub miou: Option<f64>,
}

/// The scores of a matched confusion. All shares are in percent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Pixel accuracy: the share of labelled pixels that are predicted right.
    pub acc: f64,
    /// Mean IoU by the published convention: over all classes of the taxonomy, a class in neither
    /// labels nor prediction left out, a class that occurs only in the prediction counted as 0.
    pub miou: f64,
    /// Mean IoU over the classes that occur in the labels.
    pub miou_present: f64,
    pub classes: Vec<ClassScore>,
    /// The parts of the classes that are scored on their own.
    ///
    /// NOTE: split by *class*, after the matching. The released code splits by cluster index, an
    /// arbitrary block.
    pub parts: Vec<PartScore>,
}

impl Scores {
    /// Scores of `m` (C, K) under `class_of` (K), with one [`PartScore`] for each named range of
    /// classes.
    ///
    /// Several clusters may share a class; pixels of a cluster without a class are wrong and
    /// predict nothing. Refuses a table without a labelled pixel.
    pub fn new(m: &Confusion, class_of: &ClassOf, parts: &[(&str, Range<usize>)]) -> Result<Self> {
        if m.total() == 0 {
            return Err(Error::input(
                "the images have no labelled pixel",
                "evaluate a split that has labels",
            ));
        }
        let (mut predicted, mut correct) = (vec![0; m.classes], vec![0; m.classes]);
        for (cluster, class) in class_of.iter().enumerate() {
            if let &Some(class) = class {
                predicted[class] += m.predicted(cluster);
                correct[class] += m.at(class, cluster);
            }
        }
        let class = |c: usize| {
            let labelled: u64 = m.row(c).iter().sum();
            let (predicted, correct) = (predicted[c], correct[c]);
            let iou = percent(correct, labelled + predicted - correct);
            ClassScore { labelled, predicted, correct, iou, acc: percent(correct, labelled) }
        };
        let classes: Vec<ClassScore> = (0..m.classes).map(class).collect();
        // At least one pixel is labelled, so neither sum nor mean below is of nothing.
        Ok(Scores {
            acc: accuracy(&classes).unwrap_or(0.0),
            miou: mean(classes.iter().filter_map(|c| c.iou)).unwrap_or(0.0),
            miou_present: mean(classes.iter().filter(|c| c.labelled > 0).filter_map(|c| c.iou))
                .unwrap_or(0.0),
            parts: parts.iter().map(|(name, range)| part(name, &classes[range.clone()])).collect(),
            classes,
        })
    }
}

fn part(name: &str, classes: &[ClassScore]) -> PartScore {
    PartScore {
        name: name.to_string(),
        labelled: classes.iter().map(|c| c.labelled).sum(),
        acc: accuracy(classes),
        miou: mean(classes.iter().filter_map(|c| c.iou)),
    }
}

fn accuracy(classes: &[ClassScore]) -> Option<f64> {
    percent(classes.iter().map(|c| c.correct).sum(), classes.iter().map(|c| c.labelled).sum())
}

fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| 100.0 * part as f64 / whole as f64)
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0), |(sum, n), v| (sum + v, n + 1));
    (n > 0).then(|| sum / f64::from(n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::hungarian;
    use proptest::prelude::*;

    /// Means of a few quotients: 1e-9 percent is far above f64 rounding and far below one pixel.
    fn close(got: f64, want: f64) -> bool {
        (got - want).abs() <= 1e-9
    }

    #[test]
    fn a_table_by_hand() {
        // 4 classes × 4 clusters. Class 2 is nowhere; class 3 is only predicted (by cluster 3, on
        // pixels of class 0).
        let counts = vec![6, 1, 0, 3, 2, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let m = Confusion { classes: 4, clusters: 4, counts };
        let class_of = vec![Some(0), Some(1), Some(2), Some(3)];
        let s = Scores::new(
            &m,
            &class_of,
            &[("low", 0..1), ("rest", 1..3), ("top", 3..4), ("void", 2..3)],
        )
        .unwrap();
        let (iou0, iou1) = (100.0 * 6.0 / 12.0, 100.0 * 8.0 / 11.0);
        assert!(close(s.acc, 70.0), "{}", s.acc);
        assert!(close(s.miou, (iou0 + iou1 + 0.0) / 3.0), "{}", s.miou);
        assert!(close(s.miou_present, (iou0 + iou1) / 2.0), "{}", s.miou_present);
        assert_eq!(
            s.classes[2],
            ClassScore { labelled: 0, predicted: 0, correct: 0, iou: None, acc: None }
        );
        assert_eq!(
            (s.classes[3].iou, s.classes[3].acc, s.classes[3].predicted),
            (Some(0.0), None, 3)
        );
        // Parts: the accuracy of "low" is over the ten pixels of class 0, wherever the wrong ones
        // went.
        let low = &s.parts[0];
        assert!(
            low.labelled == 10 && close(low.acc.unwrap(), 60.0) && close(low.miou.unwrap(), iou0)
        );
        assert!(close(s.parts[1].acc.unwrap(), 80.0) && close(s.parts[1].miou.unwrap(), iou1));
        assert_eq!((s.parts[2].acc, s.parts[2].miou), (None, Some(0.0)));
        assert_eq!((s.parts[3].labelled, s.parts[3].acc, s.parts[3].miou), (0, None, None));
    }

    #[test]
    fn parts_follow_the_class_and_not_the_cluster() {
        // Perfect up to names: cluster 0 is class 1. Splitting by cluster index would give 0 for
        // each part.
        let m = Confusion { classes: 2, clusters: 2, counts: vec![0, 5, 3, 0] };
        let s = Scores::new(&m, &hungarian(&m), &[("a", 0..1), ("b", 1..2)]).unwrap();
        assert!(s.parts.iter().all(|p| p.acc == Some(100.0) && p.miou == Some(100.0)));
    }

    #[test]
    fn leftover_clusters_are_wrong_and_leftover_classes_are_zero() {
        let m = Confusion { classes: 1, clusters: 2, counts: vec![3, 1] };
        let s = Scores::new(&m, &hungarian(&m), &[]).unwrap();
        assert!(close(s.acc, 75.0) && close(s.miou, 75.0), "{s:?}");
        let m = Confusion { classes: 2, clusters: 1, counts: vec![3, 1] };
        let s = Scores::new(&m, &hungarian(&m), &[]).unwrap();
        // IoU 3/4 of the class with the cluster, 0 of the other, which is in the labels.
        assert!(close(s.acc, 75.0) && close(s.miou, 37.5) && close(s.miou_present, 37.5), "{s:?}");
        assert!(Scores::new(&Confusion::new(2, 2), &vec![Some(0), Some(1)], &[]).is_err());
    }

    /// COCO-Stuff's partitions: the table is the same, each part keeps its own rows.
    #[test]
    fn things_and_stuff_of_27_classes_share_one_matching() {
        let mut m = Confusion::new(27, 27);
        // Cluster c is class 26 − c. Class 3 loses a third of its pixels to stuff class 20, stuff
        // class 14 half to thing class 0.
        for class in 0..27 {
            m.counts[class * 27 + 26 - class] = 6;
        }
        (m.counts[3 * 27 + 26 - 3], m.counts[3 * 27 + 26 - 20]) = (4, 2);
        (m.counts[14 * 27 + 26 - 14], m.counts[14 * 27 + 26]) = (3, 3);
        let s = Scores::new(&m, &hungarian(&m), &[("things", 0..12), ("stuff", 12..27)]).unwrap();
        let [things, stuff] = &s.parts[..] else { panic!("two parts") };
        assert!(close(s.acc, 100.0 * 157.0 / 162.0));
        assert!(
            close(things.acc.unwrap(), 100.0 * 70.0 / 72.0)
                && close(stuff.acc.unwrap(), 100.0 * 87.0 / 90.0)
        );
        // IoU 4/6 of class 3, 6/9 of class 0; 3/6 of class 14, 6/8 of class 20.
        let (in_things, in_stuff) = (10.0 + 4.0 / 6.0 + 6.0 / 9.0, 13.0 + 3.0 / 6.0 + 6.0 / 8.0);
        assert!(close(things.miou.unwrap(), 100.0 * in_things / 12.0), "{things:?}");
        assert!(close(stuff.miou.unwrap(), 100.0 * in_stuff / 15.0), "{stuff:?}");
        assert!(close(s.miou, 100.0 * (in_things + in_stuff) / 27.0));
    }

    proptest! {
        /// Against per-pixel counting, with each pixel's predicted class written out.
        #[test]
        fn equals_counting_pixels(pixels in proptest::collection::vec((0u8..4, 0u8..6), 1..60)) {
            let mut m = Confusion::new(4, 6);
            let (labels, clusters): (Vec<u8>, Vec<u8>) = pixels.iter().copied().unzip();
            m.add(&labels, &clusters).unwrap();
            let class_of = hungarian(&m);
            let s = Scores::new(&m, &class_of, &[]).unwrap();
            let pair = |&(l, k): &(u8, u8)| (usize::from(l), class_of[usize::from(k)]);
            let pairs: Vec<_> = pixels.iter().map(pair).collect();
            let right = pairs.iter().filter(|(l, p)| Some(*l) == *p).count();
            prop_assert!(close(s.acc, 100.0 * right as f64 / pairs.len() as f64));
            let mut ious = vec![];
            for c in 0..4 {
                let both = pairs.iter().filter(|(l, p)| *l == c && *p == Some(c)).count();
                let either = pairs.iter().filter(|(l, p)| *l == c || *p == Some(c)).count();
                let iou = (either > 0).then(|| 100.0 * both as f64 / either as f64);
                prop_assert_eq!(iou, s.classes[c].iou);
                ious.extend(iou);
            }
            prop_assert!(close(s.miou, ious.iter().sum::<f64>() / ious.len() as f64));
            prop_assert!(s.miou <= s.miou_present + 1e-9);
        }
    }
}
