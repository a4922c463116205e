//! The search for the best rows, timed.

use super::ops::{Planned, moved};
use crate::base::Result;
use crate::device::Slot;
use crate::device::ops::{Backend, Top, TopSpec};
use crate::device::timed::{Timed, bytes};

impl<B: Backend> Top for Timed<'_, B> {
    type TopPlan = Planned<B::TopPlan, TopSpec>;

    fn plan_top(&mut self, spec: TopSpec) -> Result<Self::TopPlan> {
        Ok(Planned::new(self.dev.plan_top(spec)?, spec))
    }

    fn top_update(
        &mut self,
        p: &Self::TopPlan,
        best: Slot<f32>,
        places: Slot<u32>,
        scores: Slot<f32>,
        first: usize,
    ) -> Result<()> {
        let TopSpec { rows, q, n, .. } = p.spec;
        let name = format!("top_update {n} of {rows}, {q} queries");
        self.time(name, moved(bytes![scores]), |dev| {
            dev.top_update(&p.plan, best, places, scores, first)
        })
    }
}
