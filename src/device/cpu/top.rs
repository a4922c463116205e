//! The best rows on the CPU: a query is one piece of work, its list kept in order by insertion.

use rayon::prelude::*;

use super::Cpu;
use crate::base::Result;
use crate::device::Slot;
use crate::device::ops::{Top, TopSpec};

/// Whether a (score, place) comes before another; false of NaN.
fn better(a: (f32, u32), b: (f32, u32)) -> bool {
    a.0 > b.0 || (a.0 == b.0 && a.1 < b.1)
}

impl Top for Cpu {
    type TopPlan = TopSpec;

    fn plan_top(&mut self, spec: TopSpec) -> Result<TopSpec> {
        spec.check()?;
        Ok(spec)
    }

    fn top_update(
        &mut self,
        spec: &TopSpec,
        best: Slot<f32>,
        places: Slot<u32>,
        scores: Slot<f32>,
        first: usize,
    ) -> Result<()> {
        spec.check_update(best, places, scores, first)?;
        let TopSpec { q, n, group, .. } = *spec;
        let (best, places, scores) = self.get((best, places, scores));
        let lists = best.par_chunks_exact_mut(n).zip(places.par_chunks_exact_mut(n)).enumerate();
        lists.for_each(|(query, (best, places))| {
            for (g, rows) in scores.chunks_exact(group * q).enumerate() {
                let nothing = (f32::NEG_INFINITY, u32::MAX);
                let rows = rows.iter().skip(query).step_by(q).zip((first + g * group) as u32..);
                let top =
                    rows.fold(
                        nothing,
                        |top, (&s, place)| if better((s, place), top) { (s, place) } else { top },
                    );
                if !better(top, (best[n - 1], places[n - 1])) {
                    continue;
                }
                let at = (0..n).find(|&i| better(top, (best[i], places[i]))).unwrap_or(n - 1);
                best[at..].rotate_right(1);
                places[at..].rotate_right(1);
                (best[at], places[at]) = top;
            }
        });
        Ok(())
    }
}
