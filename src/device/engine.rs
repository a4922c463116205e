//! The interface of engines, which compute: memory, a clock, recorded sequences of ops, and the
//! bodies of the ops.

use std::any::Any;

use bytemuck::{cast_slice, cast_slice_mut};

use crate::base::{Error, Result};
use crate::device::ops::Bodies;
use crate::device::trace::Noted;
use crate::device::{Act, Dtype, Element, Gauge, Layout, Slot, Trace, Work, trace};

/// A function that fills the memory it is given. It may fail.
pub type Fill<'a> = &'a mut dyn FnMut(&mut [u8]) -> Result<()>;

/// An engine: a CPU or a GPU that holds memory and runs ops. The trait's methods are what each
/// engine implements; callers use the typed methods of `dyn Engine`, and the doors of
/// [`ops`](crate::device::ops).
///
/// Ops are queued, and run in the order of their calls. Slots name parts of the memory that
/// [`Engine::reserve`] allocates.
pub trait Engine: Any + Bodies {
    /// The element type of activations, and of the weights that convolutions read.
    fn dtype(&self) -> Dtype;

    /// Makes the choices that the plans so far left open. A GPU measures convolution algorithms
    /// here, for all plans together, which may take minutes. `reserve` calls it as well; before
    /// that, `scratch_bytes` and `choices` do not include what is open.
    fn decide(&mut self) -> Result<()> {
        Ok(())
    }

    /// Bytes of scratch, the memory that an op needs only while it runs: the maximum over all plans
    /// so far.
    fn scratch_bytes(&self) -> usize;

    /// Bytes that a layout may take, if the engine has memory of its own, in which a data set may
    /// live. `None` if its memory is the host's.
    fn free_bytes(&self) -> Option<usize>;

    /// A description of the hardware for reports: a JSON object with at least a `name`.
    fn describe(&self) -> serde_json::Value;

    /// The choices made for the plans so far, one line each, for people who read plans and reports.
    fn choices(&self) -> Vec<String> {
        Vec::new()
    }

    /// Allocates every pool of `layout`, and the scratch that the plans so far asked for. Called
    /// once, before the first op, with a layout of this engine's dtype. Fails if the memory does
    /// not suffice.
    fn reserve(&mut self, layout: &Layout) -> Result<()>;

    /// dst = src, which is as long.
    fn write_bytes(&mut self, dst: Slot<u8>, src: &[u8]) -> Result<()>;

    /// dst = the bytes that `fill` writes. `fill` writes straight into memory that the device
    /// copies from, so that large data is not copied twice. It is called once, with memory that is
    /// aligned as slots are and holds garbage.
    fn fill_bytes(&mut self, dst: Slot<u8>, fill: Fill) -> Result<()>;

    /// Like `fill_bytes`, but the copy overlaps with queued ops. `dst` lies in
    /// [`Pool::Images`](crate::device::Pool) and must not be used by anything queued after the
    /// previous prefetch; call [`Engine::arrive`] before using it.
    fn prefetch_bytes(&mut self, dst: Slot<u8>, fill: Fill) -> Result<()> {
        self.fill_bytes(dst, fill)
    }

    /// Makes everything queued from now on wait for the copy that was prefetched to this slot's
    /// offset.
    fn arrive(&mut self, _slot: Slot<u8>) -> Result<()> {
        Ok(())
    }

    /// dst = the bytes that `fill` writes, `piece` bytes at a time (fewer at the end), for data
    /// that is too large for the host's memory. `fill` gets the offset at which its piece begins,
    /// and memory that holds garbage. `piece` is a multiple of [`ALIGN`](crate::device::ALIGN).
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

    /// dst = the bytes of `src`, which is as long, after everything queued before it has run (a
    /// host synchronisation).
    fn read_bytes(&mut self, dst: &mut [u8], src: Slot<u8>) -> Result<()>;

    /// dst = 0.
    fn zero_bytes(&mut self, dst: Slot<u8>) -> Result<()>;

    /// dst = src, which is as long.
    fn copy_bytes(&mut self, dst: Slot<u8>, src: Slot<u8>) -> Result<()>;

    /// Runs `ops`, or replays them from `taken`. They must be the same ops on the same slots every
    /// time, and may not read from or write to the host: whatever changes from step to step must
    /// lie in slots that were written before. Says which it was.
    fn replay_ops(
        &mut self,
        taken: &mut Taken,
        ops: &mut dyn FnMut(&mut dyn Engine) -> Result<()>,
    ) -> Result<Ran>;

    /// A mark at this place in the queue: the time when everything queued before is done.
    fn mark(&mut self) -> Result<Mark>;

    /// Seconds between two marks on the engine's clock (a host synchronisation).
    fn seconds(&mut self, start: &Mark, end: &Mark) -> Result<f64>;

    /// Opens a named range for a profiler, if there is one. Ranges nest.
    fn enter_range(&mut self, _name: &str) {}

    /// Closes the range that was opened last.
    fn leave_range(&mut self) {}

    /// Starts (`on`) or stops a profiler's window, if there is a profiler.
    fn profile(&mut self, _on: bool) -> Result<()> {
        Ok(())
    }

    /// What tells the state of the hardware, from another thread, while the engine computes.
    /// `None` where nothing does.
    fn gauge(&self) -> Option<Box<dyn Gauge>> {
        None
    }

    /// The trace of the ops that ran. It is off unless somebody starts it.
    fn trace(&mut self) -> &mut Trace;
}

/// What an engine has of a fixed sequence of ops, such as a CUDA graph. Empty at first; what it
/// holds is the engine's own type.
#[derive(Default)]
pub struct Taken(pub(super) Option<Box<dyn Any>>);

/// How a sequence of ops ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// Op by op.
    Plain,
    /// From what was recorded, now or before.
    Recorded,
}

/// A fixed sequence of ops that may have been recorded. A trace has recordings of its own, with
/// marks around each op.
#[derive(Default)]
pub struct Recording {
    plain: Taken,
    traced: Taken,
    noted: Noted,
}

/// A place in the queue of ops, as a time on the engine's clock. It holds the engine's own type: an
/// instant, or a CUDA event.
pub struct Mark(pub(super) Box<dyn Any>);

impl dyn Engine + '_ {
    /// Copies `src` from the host to `dst`. `src` may be shorter than `dst`, whose rest stays; a
    /// longer one is refused ([`Error::Shape`]).
    pub fn write<T: Element>(&mut self, dst: Slot<T>, src: &[T]) -> Result<()> {
        if src.len() > dst.len {
            let (got, want) = (src.len(), dst.len);
            return Err(Error::Shape { op: "write", what: "src", got, want });
        }
        if src.is_empty() {
            return Ok(());
        }
        let (dst, src) = (dst.part(0, src.len()).erased(), cast_slice(src));
        trace::host(self, "host write", src.len(), |dev| dev.write_bytes(dst, src))
    }

    /// Like `write`, but for activations: each value is rounded to the engine's dtype.
    pub fn write_acts(&mut self, dst: Slot<Act>, src: &[f32]) -> Result<()> {
        let bytes = self.dtype().encode(src);
        self.write(dst.erased(), &bytes)
    }

    /// dst = the elements that `fill` writes, as [`Engine::fill_bytes`] does for bytes.
    pub fn fill<T: Element>(
        &mut self,
        dst: Slot<T>,
        fill: impl FnOnce(&mut [T]) -> Result<()>,
    ) -> Result<()> {
        let mut fill = Some(fill);
        let fill = &mut |out: &mut [u8]| fill.take().expect("called once")(cast_slice_mut(out));
        if dst.len == 0 {
            return Ok(());
        }
        trace::host(self, "host fill", dst.bytes(), |dev| dev.fill_bytes(dst.erased(), fill))
    }

    /// dst = the elements that `fill` writes while queued ops go on, as [`Engine::prefetch_bytes`]
    /// does for bytes.
    pub fn prefetch<T: Element>(
        &mut self,
        dst: Slot<T>,
        fill: impl FnOnce(&mut [T]) -> Result<()>,
    ) -> Result<()> {
        let mut fill = Some(fill);
        let fill = &mut |out: &mut [u8]| fill.take().expect("called once")(cast_slice_mut(out));
        if dst.len == 0 {
            return Ok(());
        }
        let body = |dev: &mut dyn Engine| dev.prefetch_bytes(dst.erased(), fill);
        trace::host(self, "host prefetch", dst.bytes(), body)
    }

    /// The elements of `src`, after everything queued before has run (a host synchronisation).
    pub fn read<T: Element>(&mut self, src: Slot<T>) -> Result<Vec<T>> {
        let mut out = vec![T::zeroed(); src.len];
        let bytes = cast_slice_mut(&mut out);
        trace::host(self, "host read", src.bytes(), |dev| dev.read_bytes(bytes, src.erased()))?;
        Ok(out)
    }

    /// The activations of `src` as f32, after everything queued before has run (a host
    /// synchronisation).
    pub fn read_acts(&mut self, src: Slot<Act>) -> Result<Vec<f32>> {
        let bytes = self.read(src.erased())?;
        Ok(self.dtype().decode(&bytes))
    }

    /// dst = 0.
    pub fn zero<T>(&mut self, dst: Slot<T>) -> Result<()> {
        let work = Work::moved(dst.bytes());
        trace::op(self, "zero", String::new, || work, |dev| dev.zero_bytes(dst.erased()))
    }

    /// dst = src, which is as long.
    pub fn copy<T>(&mut self, dst: Slot<T>, src: Slot<T>) -> Result<()> {
        if src.bytes() != dst.bytes() {
            return Err(Error::Shape { op: "copy", what: "src", got: src.len, want: dst.len });
        }
        let work = Work::moved(2 * dst.bytes());
        let body = |dev: &mut dyn Engine| dev.copy_bytes(dst.erased(), src.erased());
        trace::op(self, "copy", String::new, || work, body)
    }

    /// Makes everything queued from now on wait for the copy that was prefetched to this slot's
    /// offset, as [`Engine::arrive`] does for bytes.
    pub fn await_images<T>(&mut self, slot: Slot<T>) -> Result<()> {
        let body = |dev: &mut dyn Engine| dev.arrive(slot.erased());
        trace::op(self, "wait for images", String::new, Work::default, body)
    }

    /// Runs `ops`, or replays them from `recording`, under the rules of [`Engine::replay_ops`].
    pub fn replay(
        &mut self,
        recording: &mut Recording,
        mut ops: impl FnMut(&mut dyn Engine) -> Result<()>,
    ) -> Result<()> {
        if !self.trace().is_on() {
            return self.replay_ops(&mut recording.plain, &mut ops).map(|_| ());
        }
        trace::settle(self)?;
        let place = self.trace().place();
        if self.replay_ops(&mut recording.traced, &mut ops)? == Ran::Plain {
            return trace::settle(self);
        }
        // Ops are noted where the recording is made.
        let noted = self.trace().cut(place);
        if !noted.is_empty() {
            recording.noted = noted;
        }
        trace::replayed(self, &recording.noted)
    }

    /// Opens a named range, which profilers and traces show. Ranges nest.
    pub fn enter(&mut self, name: &str) {
        self.trace().enter(name);
        self.enter_range(name);
    }

    /// Closes the range that was opened last.
    pub fn leave(&mut self) {
        self.leave_range();
        self.trace().leave();
    }

    /// Runs `ops` inside a named range, which profilers and traces show. Ranges nest.
    pub fn range<T>(&mut self, name: &str, ops: impl FnOnce(&mut dyn Engine) -> T) -> T {
        self.enter(name);
        let out = ops(self);
        self.leave();
        out
    }
}
