//! The body of the search for the best rows.
//!
//! Scratch: scores of what parts keep (q, parts, keep) | their places.

use crate::base::{Error, Result};
use crate::device::cuda::Cuda;
use crate::device::cuda::kernels;
use crate::device::cuda::kernels::consts::top::MOST;
use crate::device::ops::top::{MOST_KEPT, TopOps};
use crate::device::ops::{Passed, TopSpec, TopUpdate};

/// Rows of a part where every row counts.
const SPAN: usize = 4096;

const _: () = assert!(MOST_KEPT <= MOST, "the kernels' lists hold what a search may keep");

/// How the rows are cut into parts.
struct Parts {
    /// Rows of a part.
    span: usize,
    /// Rows that a part keeps: the best of a group, or the best n.
    keep: usize,
    /// Parts of a query.
    parts: usize,
    /// Rows that all parts of a query keep.
    count: usize,
    /// Bytes of the scratch where places begin, and where they end.
    places: usize,
    end: usize,
}

impl Parts {
    fn of(&TopSpec { rows, q, n, group }: &TopSpec) -> Self {
        let (span, keep) = if group > 1 { (group, 1) } else { (SPAN.min(rows), n) };
        let parts = rows.div_ceil(span);
        let bytes = q * parts * keep * size_of::<f32>();
        let places = bytes.next_multiple_of(64);
        Parts { span, keep, parts, count: parts * keep, places, end: places + bytes }
    }
}

impl TopOps for Cuda {
    fn plan_top(&mut self, spec: TopSpec) -> Result<usize> {
        if spec.rows > i32::MAX as usize {
            return Err(Error::input(
                format!("{spec:?} is larger than the GPU's kernels take"),
                "use smaller batches",
            ));
        }
        self.ask_scratch(Parts::of(&spec).end);
        Ok(0)
    }

    fn top_update(&mut self, a: Passed<TopUpdate>) -> Result<()> {
        let TopUpdate { best, places, scores, first } = *a;
        let &TopSpec { rows, q, n, .. } = a.spec();
        let parts = Parts::of(a.spec());
        let part = self.scratch(0, q * parts.count)?;
        let part_places = self.scratch(parts.places, q * parts.count)?;
        let Parts { span, keep, count, .. } = parts;
        let kernel = kernels::TopPart {
            part,
            part_places,
            scores,
            best,
            places,
            rows,
            q,
            n,
            span,
            keep,
            first,
        };
        self.launch((parts.parts, q), 0, kernel)?;
        self.launch(q, 0, kernels::TopMerge { best, places, part, part_places, count, n })
    }
}
