//! A trace of the ops that an engine ran: name, shape, bytes, FLOPs and seconds of each.
//!
//! Every op's door calls [`op`]. While the trace is off, that costs one branch; while it is on,
//! each op runs between two marks of the engine's clock, and recorded steps run op by op.
//!
//! The bytes of an op are those that must cross the memory bus, not those that an implementation
//! happens to move: each tensor counts once for every pass that has to see all of it (batch norm
//! reads its input twice, because statistics come first). FLOPs count a multiply-add as two.

use std::collections::BTreeMap;
use std::mem::take;

use crate::base::Result;
use crate::device::{Engine, Mark, Slot};

/// The memory traffic and arithmetic that an op cannot do without.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Bytes read from and written to memory.
    pub bytes: f64,
    /// Floating-point operations; a multiply-add is two.
    pub flops: f64,
}

impl Work {
    /// The work of an op that only moves memory.
    pub fn moved(bytes: usize) -> Self {
        Work { bytes: bytes as f64, flops: 0.0 }
    }

    /// The same bytes, with this many FLOPs.
    pub fn flops(self, flops: f64) -> Self {
        Work { flops, ..self }
    }
}

/// The total bytes of some slots, optional slots and arrays of slots: `bytes![x, y, residual]`.
macro_rules! bytes {
    ($($slot:expr),+ $(,)?) => {
        [$($crate::device::trace::Bytes::bytes(&$slot)),+].into_iter().sum::<usize>()
    };
}
pub(super) use bytes;

/// A slot, or several, that [`bytes!`] can add up.
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

/// All calls of one op on one shape.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timing {
    /// Number of calls.
    pub calls: usize,
    /// Seconds of all calls together.
    pub seconds: f64,
    /// The work of one call.
    pub work: Work,
}

/// An op that was queued between two marks whose times have not been read yet.
struct Pending {
    name: String,
    work: Work,
    start: Mark,
    end: Mark,
}

/// The ops that an engine ran since the trace was started. Off by default.
#[derive(Default)]
pub struct Trace {
    on: bool,
    pending: Vec<Pending>,
    /// The timings so far, by op and shape.
    timings: BTreeMap<String, Timing>,
}

impl Trace {
    /// The marks are read whenever this many ops are pending, so that they do not pile up.
    const MOST: usize = 1024;

    /// Whether ops are traced.
    pub fn is_on(&self) -> bool {
        self.on
    }
}

impl dyn Engine + '_ {
    /// Starts the trace, and forgets what was traced before.
    pub fn start_trace(&mut self) {
        *self.trace() = Trace { on: true, ..Trace::default() };
    }

    /// The timings since the trace was started, by op and shape (a host synchronisation).
    pub fn traced(&mut self) -> Result<BTreeMap<String, Timing>> {
        settle(self)?;
        Ok(self.trace().timings.clone())
    }
}

/// Moves the pending ops to the timings.
fn settle(dev: &mut dyn Engine) -> Result<()> {
    for Pending { name, work, start, end } in take(&mut dev.trace().pending) {
        let seconds = dev.seconds(&start, &end)?;
        let timing = dev.trace().timings.entry(name).or_default();
        *timing = Timing { calls: timing.calls + 1, seconds: timing.seconds + seconds, work };
    }
    Ok(())
}

/// Runs the op `name` by calling `body`, and adds it to the trace if that is on. `shape` and `work` are
/// called only then.
pub(super) fn op(
    dev: &mut (dyn Engine + '_),
    name: &str,
    shape: impl FnOnce() -> String,
    work: impl FnOnce() -> Work,
    body: impl FnOnce(&mut dyn Engine) -> Result<()>,
) -> Result<()> {
    let start = if dev.trace().on { Some(dev.mark()?) } else { None };
    body(dev)?;
    start.map_or(Ok(()), |start| note(dev, format!("{name} {}", shape()), work(), start))
}

/// Records an op that began at the mark `start` and has just been queued.
fn note(dev: &mut dyn Engine, name: String, work: Work, start: Mark) -> Result<()> {
    let (name, end) = (name.trim_end().to_string(), dev.mark()?);
    let pending = &mut dev.trace().pending;
    pending.push(Pending { name, work, start, end });
    if pending.len() >= Trace::MOST { settle(dev) } else { Ok(()) }
}
