//! The best rows of many, query by query, as batches of scores come by.

use crate::base::{Error, Result};
use crate::device::Slot;
use crate::device::ops::{Memory, want};

/// The most rows that are kept for a query, and the most queries.
pub const MOST_KEPT: usize = 64;
pub const MOST_QUERIES: usize = 32;

/// Scores (rows, q) of q queries, of which n places are kept for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopSpec {
    pub rows: usize,
    pub q: usize,
    pub n: usize,
    /// Of each `group` successive rows, such as an image's, only the best counts; 1: every row
    /// does. Divides `rows`.
    pub group: usize,
}

impl TopSpec {
    /// What no engine plans.
    pub(crate) fn check(&self) -> Result<()> {
        let TopSpec { rows, q, n, group } = *self;
        if rows * q * n * group == 0 {
            return Err(Error::input(
                format!("a search without content: {self:?}"),
                "give every size at least 1",
            ));
        }
        if q > MOST_QUERIES || n > MOST_KEPT {
            let what = format!("the best {n} for each of {q} queries");
            return Err(Error::input(
                what,
                format!("ask for at most {MOST_KEPT}, with {MOST_QUERIES} queries"),
            ));
        }
        if !rows.is_multiple_of(group) {
            let what = format!("{rows} rows are not whole groups of {group}");
            return Err(Error::input(what, "give whole images"));
        }
        Ok(())
    }

    /// The door of [`Top::top_update`].
    pub(crate) fn check_update(
        &self,
        best: Slot<f32>,
        places: Slot<u32>,
        scores: Slot<f32>,
        first: usize,
    ) -> Result<()> {
        const OP: &str = "top_update";
        want(OP, "best", best, self.q * self.n)?;
        want(OP, "places", places, self.q * self.n)?;
        want(OP, "scores", scores, self.rows * self.q)?;
        // u32::MAX is no place.
        if first + self.rows > u32::MAX as usize {
            let what = format!("rows from place {first} on do not fit into 32 bits");
            return Err(Error::input(what, "search fewer images, with --limit"));
        }
        Ok(())
    }
}

pub trait Top: Memory {
    type TopPlan: Clone;

    fn plan_top(&mut self, spec: TopSpec) -> Result<Self::TopPlan>;

    /// best (q, n), places (q, n) = the n best of what they were and of these rows, the best first;
    /// of equal scores the lower place comes first, and counts in a group. Row i of scores (rows,
    /// q) is place `first` + i. A search begins with −∞ at the places u32::MAX; a NaN is never
    /// kept.
    fn top_update(
        &mut self,
        plan: &Self::TopPlan,
        best: Slot<f32>,
        places: Slot<u32>,
        scores: Slot<f32>,
        first: usize,
    ) -> Result<()>;
}
