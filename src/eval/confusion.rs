//! The confusion matrix: how many labelled pixels of each class fell into each cluster.

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};
use crate::data::IGNORE;

/// A matrix of pixel counts (C, K), row-major: a row is a ground-truth class, a column is a
/// cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    pub classes: usize,
    pub clusters: usize,
    pub counts: Vec<u64>,
}

impl Confusion {
    /// The matrix of zeros.
    pub fn new(classes: usize, clusters: usize) -> Self {
        Confusion { classes, clusters, counts: vec![0; classes * clusters] }
    }

    /// Adds the pixels of one image to the counts: `labels` (N) in 0..C or [`IGNORE`],
    /// `predictions` (N) in 0..K, u8 or u16.
    ///
    /// Refuses slices of two lengths, a label ≥ C and a cluster ≥ K (the last also on an ignored
    /// pixel); the counts are then as before the call.
    pub fn add<P: Copy + Into<usize>>(&mut self, labels: &[u8], predictions: &[P]) -> Result<()> {
        let (c, k) = (self.classes, self.clusters);
        if labels.len() != predictions.len() {
            let (got, want) = (predictions.len(), labels.len());
            return Err(Error::Shape { op: "confusion", what: "predictions", got, want });
        }
        if let Some(label) = labels.iter().find(|&&l| l != IGNORE && usize::from(l) >= c) {
            let what = format!("a label map holds class {label}, but the data set has {c} classes");
            return Err(Error::input(what, "choose the --dataset the labels belong to"));
        }
        if let Some(cluster) = predictions.iter().map(|&p| p.into()).find(|&p| p >= k) {
            return Err(Error::Shape {
                op: "confusion",
                what: "clusters",
                got: k,
                want: cluster + 1,
            });
        }
        for (&label, &cluster) in labels.iter().zip(predictions) {
            if label != IGNORE {
                self.counts[usize::from(label) * k + cluster.into()] += 1;
            }
        }
        Ok(())
    }

    /// Adds the counts of `other`, which must have the same (C, K).
    pub fn merge(&mut self, other: &Confusion) -> Result<()> {
        let (got, want) = ((other.classes, other.clusters), (self.classes, self.clusters));
        if got != want {
            return Err(Error::Shape {
                op: "confusion",
                what: "counts",
                got: got.0 * got.1,
                want: want.0 * want.1,
            });
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        Ok(())
    }

    /// The pixels of `class` that fell into `cluster`.
    pub fn at(&self, class: usize, cluster: usize) -> u64 {
        self.counts[class * self.clusters + cluster]
    }

    /// The K counts of one class.
    pub fn row(&self, class: usize) -> &[u64] {
        &self.counts[class * self.clusters..][..self.clusters]
    }

    /// The number of labelled pixels in one cluster.
    pub fn predicted(&self, cluster: usize) -> u64 {
        (0..self.classes).map(|class| self.at(class, cluster)).sum()
    }

    /// The number of classes that occur in the labels.
    pub fn occurring(&self) -> usize {
        (0..self.classes).filter(|&class| self.row(class).iter().any(|&count| count > 0)).count()
    }

    /// The number of labelled pixels.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_classes_and_ignored_pixels_do_not_count() {
        let mut m = Confusion::new(2, 3);
        m.add(&[0, 1, 1, IGNORE, 1], &[2u8, 0, 0, 1, 2]).unwrap();
        m.add(&[0], &[1u16]).unwrap();
        assert_eq!(m.counts, [0, 1, 1, 2, 0, 1]);
        assert_eq!((m.at(1, 0), m.row(0), m.predicted(2), m.total()), (2, &[0u64, 1, 1][..], 2, 5));
    }

    #[test]
    fn merging_is_adding_everything_to_one() {
        let (mut a, mut b, mut both) =
            (Confusion::new(3, 2), Confusion::new(3, 2), Confusion::new(3, 2));
        a.add(&[0, 2], &[1u8, 0]).unwrap();
        b.add(&[2, 1], &[0u8, 1]).unwrap();
        both.add(&[0, 2, 2, 1], &[1u8, 0, 0, 1]).unwrap();
        a.merge(&b).unwrap();
        assert_eq!(a, both);
        // NOTE: (2, 3) has as many counts as (3, 2), and is another matrix.
        assert!(a.merge(&Confusion::new(2, 3)).is_err());
    }

    #[test]
    fn refuses_what_does_not_fit_and_stays_as_it_was() {
        let mut m = Confusion::new(2, 3);
        let text = m.add(&[0, 2], &[0u8, 0]).unwrap_err().to_string();
        assert!(text.contains("class 2") && text.contains("--dataset"), "{text}");
        assert!(m.add(&[0, 0], &[0u8, 3]).is_err());
        assert!(m.add(&[0, 0], &[0u8]).is_err());
        assert_eq!(m, Confusion::new(2, 3));
    }
}
