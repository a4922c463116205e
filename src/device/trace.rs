//! What an engine was asked to compute: op, shape, bytes, FLOPs and seconds.
//!
//! Every door passes here. Off, it is one branch; on, ops stand between two marks of the engine's
//! clock, and recorded steps run op by op.
//!
//! The bytes of an op are those that must cross the memory bus: each tensor once a pass that has
//! to see all of it (batch norm reads its input twice, because statistics come first), not what an
//! implementation happens to move. FLOPs count a multiply-add as two.

use std::collections::BTreeMap;
use std::mem::take;

use crate::base::Result;
use crate::device::{Engine, Mark, Slot};

/// What an op must move and compute.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    pub bytes: f64,
    pub flops: f64,
}

impl Work {
    /// Of an op that only moves memory.
    pub fn moved(bytes: usize) -> Self {
        Work { bytes: bytes as f64, flops: 0.0 }
    }

    /// The same with this many FLOPs.
    pub fn flops(self, flops: f64) -> Self {
        Work { flops, ..self }
    }
}

/// Bytes of slots, where some may be missing: `bytes![x, y, residual]`.
macro_rules! bytes {
    ($($slot:expr),+ $(,)?) => {
        [$($crate::device::trace::Bytes::bytes(&$slot)),+].into_iter().sum::<usize>()
    };
}
pub(super) use bytes;

/// What [`bytes!`] adds up.
pub(super) trait Bytes {
    fn bytes(&self) -> usize;
}

impl<T> Bytes for Slot<T> {
    fn bytes(&self) -> usize {
        Slot::bytes(*self)
    }
}

impl<B: Bytes> Bytes for Option<B> {
    fn bytes(&self) -> usize {
        self.as_ref().map_or(0, Bytes::bytes)
    }
}

impl<B: Bytes, const N: usize> Bytes for [B; N] {
    fn bytes(&self) -> usize {
        self.iter().map(Bytes::bytes).sum()
    }
}

/// Calls of one op on one shape.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timing {
    pub calls: usize,
    pub seconds: f64,
    /// Of one call.
    pub work: Work,
}

/// An op between two marks that nobody has read yet.
struct Pending {
    name: String,
    work: Work,
    start: Mark,
    end: Mark,
}

/// The record of an engine's ops.
#[derive(Default)]
pub struct Trace {
    on: bool,
    pending: Vec<Pending>,
    /// By op and shape.
    timings: BTreeMap<String, Timing>,
}

impl Trace {
    /// Marks are read after this many ops, so that they do not pile up.
    const MOST: usize = 1024;

    pub fn is_on(&self) -> bool {
        self.on
    }
}

impl dyn Engine + '_ {
    /// Begins to trace, and forgets what was traced before.
    pub fn start_trace(&mut self) {
        *self.trace() = Trace { on: true, ..Trace::default() };
    }

    /// What was traced since the start, by op and shape.
    pub fn traced(&mut self) -> Result<BTreeMap<String, Timing>> {
        settle(self)?;
        Ok(self.trace().timings.clone())
    }
}

/// Reads the marks that are pending.
fn settle(dev: &mut dyn Engine) -> Result<()> {
    for Pending { name, work, start, end } in take(&mut dev.trace().pending) {
        let seconds = dev.seconds(&start, &end)?;
        let timing = dev.trace().timings.entry(name).or_default();
        *timing = Timing { calls: timing.calls + 1, seconds: timing.seconds + seconds, work };
    }
    Ok(())
}

/// Runs an op, and records it where ops are traced.
pub(super) fn op(
    dev: &mut (dyn Engine + '_),
    name: &str,
    shape: impl FnOnce() -> String,
    work: impl FnOnce() -> Work,
    body: impl FnOnce(&mut dyn Engine) -> Result<()>,
) -> Result<()> {
    if !dev.trace().on {
        return body(dev);
    }
    let start = dev.mark()?;
    body(dev)?;
    let end = dev.mark()?;
    let name = format!("{name} {}", shape()).trim_end().to_string();
    let pending = &mut dev.trace().pending;
    pending.push(Pending { name, work: work(), start, end });
    if pending.len() >= Trace::MOST { settle(dev) } else { Ok(()) }
}
