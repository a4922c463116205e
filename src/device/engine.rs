//! What computes: memory, a clock, recorded sequences of ops, and the bodies of the ops.

use std::any::Any;

use bytemuck::{cast_slice, cast_slice_mut};

use crate::base::{Error, Result};
use crate::device::ops::Bodies;
use crate::device::{Act, Dtype, Element, Layout, Slot, Trace, Work, trace};

/// Fills memory that it is given as bytes.
pub type Fill<'a> = &'a mut dyn FnMut(&mut [u8]) -> Result<()>;

/// An engine. Its methods are what an engine has to say and do; callers use the typed ones of
/// `dyn Engine`, and the doors of [`ops`](crate::device::ops).
///
/// Ops are queued in the order of their calls. Slots are names for memory of [`Engine::reserve`]'s.
pub trait Engine: Any + Bodies {
    /// How activations are stored, and the weights that convolutions read.
    fn dtype(&self) -> Dtype;

    /// Settles what the plans so far left open, which may take minutes on a GPU: how many of them
    /// convolve, and which share a shape, is known only when all are made. `reserve` does it as
    /// well; before, `scratch_bytes` and `choices` know nothing of what is open.
    fn decide(&mut self) -> Result<()> {
        Ok(())
    }

    /// Bytes of scratch that the plans so far asked for: what an op needs while it runs, the
    /// maximum over all ops.
    fn scratch_bytes(&self) -> usize;

    /// Bytes that a plan may take, where memory is the engine's own and a data set may live in it.
    /// None: it is the host's.
    fn free_bytes(&self) -> Option<usize>;

    /// What computes, for reports: an object with at least a `name`.
    fn describe(&self) -> serde_json::Value;

    /// What was decided for the plans so far, a line each, for those who read plans and reports.
    fn choices(&self) -> Vec<String> {
        Vec::new()
    }

    /// Allocates every pool of `layout`, and the scratch that the plans so far asked for. Called
    /// once, before the first op. The layout is of this engine's dtype.
    fn reserve(&mut self, layout: &Layout) -> Result<()>;

    /// dst = src, which is as long.
    fn write_bytes(&mut self, dst: Slot<u8>, src: &[u8]) -> Result<()>;

    /// dst = what `fill` makes, in memory that the device copies from, aligned as slots are: for
    /// what is too large to be copied twice. `fill` is called once and finds garbage.
    fn fill_bytes(&mut self, dst: Slot<u8>, fill: Fill) -> Result<()>;

    /// As `fill_bytes`, but while what is queued goes on, for a slot of
    /// [`Pool::Images`](crate::device::Pool): nothing that was queued since the prefetch before
    /// may use `dst`, and before it is used [`Engine::arrive`] is called.
    fn prefetch_bytes(&mut self, dst: Slot<u8>, fill: Fill) -> Result<()> {
        self.fill_bytes(dst, fill)
    }

    /// What is queued from now on finds in the slot what was prefetched to this offset.
    fn arrive(&mut self, _slot: Slot<u8>) -> Result<()> {
        Ok(())
    }

    /// dst = what `fill` makes of it, `piece` bytes at a time (fewer at the end): it is told which
    /// byte its piece begins at, and finds garbage. For what is too large for the host. A piece
    /// begins where a slot may.
    fn load_bytes(
        &mut self,
        dst: Slot<u8>,
        piece: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        for start in (0..dst.len).step_by(piece) {
            let part = dst.part(start, piece.min(dst.len - start));
            self.fill_bytes(part, &mut |out| fill(start, out))?;
        }
        Ok(())
    }

    /// dst = the slot's bytes, as many, after everything before it has run (a host
    /// synchronisation).
    fn read_bytes(&mut self, dst: &mut [u8], src: Slot<u8>) -> Result<()>;

    /// dst = 0.
    fn zero_bytes(&mut self, dst: Slot<u8>) -> Result<()>;

    /// dst = src, which is as long.
    fn copy_bytes(&mut self, dst: Slot<u8>, src: Slot<u8>) -> Result<()>;

    /// Runs `ops`, or replays what `recording` has of them. They must be the same ops on the same
    /// slots every time, and neither read nor write: what changes from step to step lies in slots
    /// written before.
    fn replay_ops(
        &mut self,
        recording: &mut Recording,
        ops: &mut dyn FnMut(&mut dyn Engine) -> Result<()>,
    ) -> Result<()>;

    /// Notes when everything before is done.
    fn mark(&mut self) -> Result<Mark>;

    /// Seconds that the engine was busy between two marks (a host synchronisation).
    fn seconds(&mut self, start: &Mark, end: &Mark) -> Result<f64>;

    /// Opens a named range, where a profiler may look on.
    fn enter(&mut self, _name: &str) {}

    /// Closes the range that was opened last.
    fn leave(&mut self) {}

    /// Opens or closes the window that a profiler records, where there is one.
    fn record(&mut self, _on: bool) -> Result<()> {
        Ok(())
    }

    /// The record of its ops, which is off unless somebody asks for it.
    fn trace(&mut self) -> &mut Trace;
}

/// A fixed sequence of ops that an engine may have recorded: what it has of it is its own affair.
#[derive(Default)]
pub struct Recording(pub(super) Option<Box<dyn Any>>);

/// A place in the sequence of ops: an instant or an event, whatever the engine's clock is.
pub struct Mark(pub(super) Box<dyn Any>);

impl dyn Engine + '_ {
    /// dst = src. `src` may be shorter: the rest of `dst` stays.
    pub fn write<T: Element>(&mut self, dst: Slot<T>, src: &[T]) -> Result<()> {
        if src.len() > dst.len {
            let (got, want) = (src.len(), dst.len);
            return Err(Error::Shape { op: "write", what: "src", got, want });
        }
        if src.is_empty() {
            Ok(())
        } else {
            self.write_bytes(dst.part(0, src.len()).erased(), cast_slice(src))
        }
    }

    /// dst = src, rounded to the engine's dtype. `src` may be shorter: the rest of `dst` stays.
    pub fn write_acts(&mut self, dst: Slot<Act>, src: &[f32]) -> Result<()> {
        let bytes = self.dtype().encode(src);
        self.write(dst.erased(), &bytes)
    }

    /// dst = what `fill` makes, as [`Engine::fill_bytes`] says.
    pub fn fill<T: Element>(
        &mut self,
        dst: Slot<T>,
        fill: impl FnOnce(&mut [T]) -> Result<()>,
    ) -> Result<()> {
        let mut fill = Some(fill);
        let fill = &mut |out: &mut [u8]| fill.take().expect("called once")(cast_slice_mut(out));
        if dst.len == 0 { Ok(()) } else { self.fill_bytes(dst.erased(), fill) }
    }

    /// dst = what `fill` makes, as [`Engine::prefetch_bytes`] says.
    pub fn prefetch(
        &mut self,
        dst: Slot<u8>,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut fill = Some(fill);
        self.prefetch_bytes(dst, &mut |out| fill.take().expect("called once")(out))
    }

    /// The slot's elements, after everything before has run (a host synchronisation).
    pub fn read<T: Element>(&mut self, src: Slot<T>) -> Result<Vec<T>> {
        let mut out = vec![T::zeroed(); src.len];
        self.read_bytes(cast_slice_mut(&mut out), src.erased())?;
        Ok(out)
    }

    /// The slot's activations, widened, after everything before has run.
    pub fn read_acts(&mut self, src: Slot<Act>) -> Result<Vec<f32>> {
        let bytes = self.read(src.erased())?;
        Ok(self.dtype().decode(&bytes))
    }

    /// dst = 0.
    pub fn zero<T>(&mut self, dst: Slot<T>) -> Result<()> {
        let work = Work::moved(dst.bytes());
        trace::op(self, "zero", String::new, || work, |dev| dev.zero_bytes(dst.erased()))
    }

    /// dst = src.
    pub fn copy<T>(&mut self, dst: Slot<T>, src: Slot<T>) -> Result<()> {
        if src.bytes() != dst.bytes() {
            return Err(Error::Shape { op: "copy", what: "src", got: src.len, want: dst.len });
        }
        let work = Work::moved(2 * dst.bytes());
        let body = |dev: &mut dyn Engine| dev.copy_bytes(dst.erased(), src.erased());
        trace::op(self, "copy", String::new, || work, body)
    }

    /// Runs `ops`, or replays what `recording` has of them, as [`Engine::replay_ops`] says. While
    /// ops are traced they run one by one.
    pub fn replay(
        &mut self,
        recording: &mut Recording,
        mut ops: impl FnMut(&mut dyn Engine) -> Result<()>,
    ) -> Result<()> {
        if self.trace().is_on() { ops(self) } else { self.replay_ops(recording, &mut ops) }
    }

    /// Names what `ops` queues, for profilers; ranges nest.
    pub fn range<T>(&mut self, name: &str, ops: impl FnOnce(&mut dyn Engine) -> T) -> T {
        self.enter(name);
        let out = ops(self);
        self.leave();
        out
    }
}
