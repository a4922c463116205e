//! An engine that times every op of another one, and knows what each would cost on perfect
//! hardware.
//!
//! The bytes of an op are those that must cross the memory bus: each tensor once a pass that has to
//! see all of it (batch norm reads its input twice, because statistics come first), not what an
//! implementation happens to move. FLOPs count a multiply-add as two. `replay` runs op by op.

mod head;
mod memory;
mod ops;
mod top;

use std::collections::BTreeMap;

use crate::base::Result;
use crate::device::ops::Memory;

/// What an op must move and compute.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    pub bytes: f64,
    pub flops: f64,
}

/// Calls of one op on one shape.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timing {
    pub calls: usize,
    pub seconds: f64,
    /// Of one call.
    pub work: Work,
}

/// Times the ops of `dev`.
pub struct Timed<'a, B: Memory> {
    pub dev: &'a mut B,
    /// Marks around calls that were not yet read.
    pending: Vec<(String, Work, B::Mark, B::Mark)>,
    timings: BTreeMap<String, Timing>,
}

impl<'a, B: Memory> Timed<'a, B> {
    pub fn new(dev: &'a mut B) -> Self {
        Timed { dev, pending: Vec::new(), timings: BTreeMap::new() }
    }

    /// Forgets what was measured so far.
    pub fn restart(&mut self) -> Result<()> {
        self.settle()?;
        self.timings.clear();
        Ok(())
    }

    /// By op and shape.
    pub fn timings(&mut self) -> Result<&BTreeMap<String, Timing>> {
        self.settle()?;
        Ok(&self.timings)
    }

    fn settle(&mut self) -> Result<()> {
        for (name, work, start, end) in std::mem::take(&mut self.pending) {
            let seconds = self.dev.seconds(start, end)?;
            let timing = self.timings.entry(name).or_default();
            *timing = Timing { calls: timing.calls + 1, seconds: timing.seconds + seconds, work };
        }
        Ok(())
    }

    /// Runs one op between two marks.
    fn time(
        &mut self,
        name: String,
        work: Work,
        op: impl FnOnce(&mut B) -> Result<()>,
    ) -> Result<()> {
        let start = self.dev.mark()?;
        op(self.dev)?;
        let end = self.dev.mark()?;
        self.pending.push((name, work, start, end));
        // So that marks do not pile up.
        if self.pending.len() >= 1024 { self.settle() } else { Ok(()) }
    }
}

/// Bytes of a list of slots, `None` counting nothing: `bytes![x, y, residual]`.
macro_rules! bytes {
    ($($slot:expr),+ $(,)?) => {
        [$($crate::device::timed::Sized::size(&$slot)),+].into_iter().sum::<usize>() as f64
    };
}
use bytes;

/// What has a size in bytes.
trait Sized {
    fn size(&self) -> usize;
}

impl<T: crate::device::Element> Sized for crate::device::Slot<T> {
    fn size(&self) -> usize {
        self.bytes()
    }
}

impl<T: crate::device::Element> Sized for Option<crate::device::Slot<T>> {
    fn size(&self) -> usize {
        self.map_or(0, |slot| slot.bytes())
    }
}

impl<T: crate::device::Element> Sized for [crate::device::Slot<T>; 4] {
    fn size(&self) -> usize {
        self.iter().map(|slot| slot.bytes()).sum()
    }
}
