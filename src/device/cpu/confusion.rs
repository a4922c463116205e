//! The confusion histogram on the CPU: each piece of pixels has a histogram of its own, and these
//! are added up in any order, because they are integers.

use rayon::prelude::*;

use super::Cpu;
use crate::base::Result;
use crate::device::ops::confusion::ConfusionOps;
use crate::device::ops::{ConfusionCount, Passed};

/// Number of pixels in a piece of work.
const PIECE: usize = 1 << 17;

/// The label of a pixel without ground truth, which is not counted.
const UNLABELLED: u8 = 255;

impl ConfusionOps for Cpu {
    fn confusion_count(&mut self, a: Passed<ConfusionCount>) -> Result<()> {
        let clusters = a.clusters;
        let (counts, pred, labels) = self.get((a.counts, a.pred, a.labels));
        let histogram = |(pred, labels): (&[u16], &[u8])| {
            let mut histogram = vec![0u32; counts.len()];
            for (&p, &l) in pred.iter().zip(labels).filter(|(_, l)| **l != UNLABELLED) {
                debug_assert!(usize::from(p) < clusters, "prediction {p} of {clusters} clusters");
                histogram[usize::from(l) * clusters + usize::from(p)] += 1;
            }
            histogram
        };
        let add = |mut a: Vec<u32>, b: Vec<u32>| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            a
        };
        let pieces = pred.par_chunks(PIECE).zip(labels.par_chunks(PIECE));
        let total = pieces.map(histogram).reduce(Vec::new, |a, b| {
            if a.is_empty() {
                b
            } else if b.is_empty() {
                a
            } else {
                add(a, b)
            }
        });
        counts.iter_mut().zip(total).for_each(|(c, t)| *c += t);
        Ok(())
    }
}
