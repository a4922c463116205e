//! The best rows of many, query by query, as batches of scores come by.

use std::fmt;

use crate::base::{Error, Result};
use crate::device::ops::{Op, Passed, Plan, door, want};
use crate::device::trace::bytes;
use crate::device::{Engine, Slot, Work};

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
    /// Refuses what no engine plans.
    fn check(&self) -> Result<()> {
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
}

impl fmt::Display for TopSpec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} of {}, {} queries", self.n, self.rows, self.q)
    }
}

/// Arguments of [`top_update`].
#[derive(Clone, Copy, Debug)]
pub struct TopUpdate {
    /// (q, n): read and written.
    pub best: Slot<f32>,
    /// (q, n): read and written.
    pub places: Slot<u32>,
    /// (rows, q)
    pub scores: Slot<f32>,
    /// The place of the first row.
    pub first: usize,
}

impl Op for TopUpdate {
    type Spec = TopSpec;
    const NAME: &'static str = "top_update";

    fn check(&self, &TopSpec { rows, q, n, .. }: &TopSpec) -> Result<()> {
        want(Self::NAME, "best", self.best, q * n)?;
        want(Self::NAME, "places", self.places, q * n)?;
        want(Self::NAME, "scores", self.scores, rows * q)?;
        // u32::MAX is no place.
        if self.first + rows > u32::MAX as usize {
            let what = format!("rows from place {} on do not fit into 32 bits", self.first);
            return Err(Error::input(what, "search fewer images, with --limit"));
        }
        Ok(())
    }

    fn work(&self, _: &TopSpec) -> Work {
        Work::moved(bytes![self.scores])
    }
}

/// What an engine does of the family.
pub trait Top {
    /// Asks for scratch; refuses sizes that the engine cannot run. Returns its number for the plan.
    fn plan_top(&mut self, spec: TopSpec) -> Result<usize>;
    fn top_update(&mut self, a: Passed<TopUpdate>) -> Result<()>;
}

pub fn plan_top(dev: &mut dyn Engine, spec: TopSpec) -> Result<Plan<TopSpec>> {
    spec.check()?;
    Ok(Plan { spec, number: dev.plan_top(spec)? })
}

/// best, places = the n best of what they were and of these rows, the best first; of equal scores
/// the lower place comes first, and counts in a group. Row i of the scores is place `first` + i. A
/// search begins with −∞ at the places u32::MAX; a NaN is never kept.
pub fn top_update(dev: &mut dyn Engine, plan: &Plan<TopSpec>, a: TopUpdate) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.top_update(a))
}
