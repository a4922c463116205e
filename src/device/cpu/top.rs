//! The search for the best rows on the CPU: a query is one piece of work, and its list is kept in
//! order by insertion.

use rayon::prelude::*;

use super::Cpu;
use crate::base::Result;
use crate::device::ops::top::TopOps;
use crate::device::ops::{Passed, TopSpec, TopUpdate};

/// Whether `a`, a score and its place, comes before `b` in a list of the best. A NaN never does.
fn better(a: (f32, u32), b: (f32, u32)) -> bool {
    a.0 > b.0 || (a.0 == b.0 && a.1 < b.1)
}

impl TopOps for Cpu {
    /// Lists are kept in place: no scratch.
    fn plan_top(&mut self, _: TopSpec) -> Result<usize> {
        Ok(0)
    }

    fn top_update(&mut self, a: Passed<TopUpdate>) -> Result<()> {
        let TopSpec { q, n, group, .. } = *a.spec();
        let (best, places, scores) = self.get((a.best, a.places, a.scores));
        let lists = best.par_chunks_exact_mut(n).zip(places.par_chunks_exact_mut(n)).enumerate();
        lists.for_each(|(query, (best, places))| {
            for (g, rows) in scores.chunks_exact(group * q).enumerate() {
                let nothing = (f32::NEG_INFINITY, u32::MAX);
                let rows = rows.iter().skip(query).step_by(q).zip((a.first + g * group) as u32..);
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
