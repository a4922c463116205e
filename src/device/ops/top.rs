//! The search for the best rows of each query, in scores that come batch by batch.

use std::fmt;

use crate::base::{Error, Result};
use crate::device::ops::{Op, Passed, Plan, door, want};
use crate::device::trace::bytes;
use crate::device::{Engine, Slot, Work};

/// The largest number of rows that can be kept for a query.
pub const MOST_KEPT: usize = 64;
/// The largest number of queries.
pub const MOST_QUERIES: usize = 32;

/// The sizes of a search: scores (rows, q) for q queries, of which the best n rows are kept for
/// each query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopSpec {
    /// Number of rows in a batch.
    pub rows: usize,
    /// Number of queries.
    pub q: usize,
    /// Number of rows that are kept for each query.
    pub n: usize,
    /// Number of successive rows, such as those of an image, of which only the best counts. 1:
    /// every row counts. Divides `rows`.
    pub group: usize,
}

impl TopSpec {
    /// Fails on sizes that no engine can run.
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
    /// (q, n), the best scores so far, the best first: read and written.
    pub best: Slot<f32>,
    /// (q, n), the places of these scores: read and written.
    pub places: Slot<u32>,
    /// (rows, q), the scores of this batch.
    pub scores: Slot<f32>,
    /// The place of this batch's first row among the rows of all batches.
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

/// The bodies of this family's ops, which every engine implements. The doors below say what each op
/// computes.
pub trait TopOps {
    /// Prepares the ops for this spec: asks for scratch, and fails on sizes that the engine cannot
    /// run. Returns the engine's own number for the plan.
    fn plan_top(&mut self, spec: TopSpec) -> Result<usize>;
    fn top_update(&mut self, a: Passed<TopUpdate>) -> Result<()>;
}

/// Plans the ops of this family for `spec`. Fails on sizes that this engine cannot run.
pub fn plan_top(dev: &mut dyn Engine, spec: TopSpec) -> Result<Plan<TopSpec>> {
    spec.check()?;
    Ok(Plan { spec, number: dev.plan_top(spec)? })
}

/// best, places = the n best of those kept so far and of these rows, the best first. Among equal
/// scores the lower place comes first, and is the one that counts in a group. Row i of the scores
/// has the place `first` + i. A search begins with scores of −∞ at the places `u32::MAX`; a NaN is
/// never kept.
pub fn top_update(dev: &mut dyn Engine, plan: &Plan<TopSpec>, a: TopUpdate) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.top_update(a))
}
