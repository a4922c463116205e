//! Launchers of the search for the best rows.
//!
//! Scratch: scores of what parts keep (q, parts, keep) | their places.

use crate::base::{Error, Result};
use crate::device::cuda::context::{Cuda, Grid, Kernel};
use crate::device::ops::{Top, TopSpec};
use crate::device::{Activation, Slot};

const THREADS: u32 = 256;
/// Rows of a part where every row counts.
const SPAN: usize = 4096;

#[derive(Clone, Copy, Debug)]
pub struct TopPlan {
    spec: TopSpec,
    part: Kernel,
    merge: Kernel,
}

impl TopPlan {
    /// Rows of a part and what it keeps of them: the best of a group, or the best n.
    fn part(&self) -> (usize, usize) {
        let TopSpec { rows, n, group, .. } = self.spec;
        if group > 1 { (group, 1) } else { (SPAN.min(rows), n) }
    }

    fn parts(&self) -> usize {
        self.spec.rows.div_ceil(self.part().0)
    }

    /// What all parts of a query keep.
    fn candidates(&self) -> usize {
        self.parts() * self.part().1
    }

    /// Bytes where the places begin, and where they end.
    fn scratch(&self) -> [usize; 2] {
        let bytes = self.spec.q * self.candidates() * size_of::<f32>();
        let places = bytes.next_multiple_of(64);
        [places, places + bytes]
    }
}

impl<A: Activation> Top for Cuda<A> {
    type TopPlan = TopPlan;

    fn plan_top(&mut self, spec: TopSpec) -> Result<TopPlan> {
        spec.check()?;
        if spec.rows > i32::MAX as usize {
            return Err(Error::input(
                format!("{spec:?} is larger than the GPU's kernels take"),
                "use smaller batches",
            ));
        }
        let plan =
            TopPlan { spec, part: self.kernel("top_part")?, merge: self.kernel("top_merge")? };
        self.ask_scratch(plan.scratch()[1]);
        Ok(plan)
    }

    fn top_update(
        &mut self,
        plan: &TopPlan,
        best: Slot<f32>,
        places: Slot<u32>,
        scores: Slot<f32>,
        first: usize,
    ) -> Result<()> {
        plan.spec.check_update(best, places, scores, first)?;
        let (TopSpec { rows, q, n, .. }, (span, keep), count) =
            (plan.spec, plan.part(), plan.candidates());
        let part = self.at(self.scratch::<f32>(0, q * count)?);
        let part_places = self.at(self.scratch::<u32>(plan.scratch()[0], q * count)?);
        let (best, places) = (self.at(best), self.at(places));
        let args = [part, part_places, self.at(scores), best, places];
        let sizes = [rows, q, n, span, keep, first].map(|size| size.into());
        self.launch(
            plan.part,
            Grid::new((plan.parts(), q), THREADS),
            &[&args[..], &sizes].concat(),
        )?;
        self.launch(
            plan.merge,
            Grid::new(q, THREADS),
            &[best, places, part, part_places, count.into(), n.into()],
        )
    }
}
