//! The confusion histogram on the CPU: one histogram a piece of pixels, added up; integers have no
//! order to keep.

use rayon::prelude::*;

use super::Cpu;
use crate::base::Result;
use crate::device::Slot;
use crate::device::ops::{Confusion, want};

/// Pixels a piece.
const PIECE: usize = 1 << 17;

/// The label of a pixel that counts nowhere.
const UNLABELLED: u8 = 255;

impl Confusion for Cpu {
    fn confusion(
        &mut self,
        counts: Slot<u32>,
        pred: Slot<u16>,
        labels: Slot<u8>,
        clusters: usize,
    ) -> Result<()> {
        const OP: &str = "confusion";
        want(OP, "labels", labels, pred.len)?;
        want(OP, "counts", counts, (counts.len / clusters.max(1)).max(1) * clusters)?;
        let (counts, pred, labels) = self.get((counts, pred, labels));
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
