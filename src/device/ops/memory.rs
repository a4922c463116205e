//! Pools and the traffic between host and device.

use crate::base::Result;
use crate::device::{Activation, Element, Layout, Slot};

pub trait Memory {
    /// The element type of activations and of the weights that convolutions read.
    type Act: Activation;

    /// A fixed sequence of ops that [`Memory::replay`] may have recorded.
    type Recording: Default;

    /// A place in the sequence of ops.
    type Mark;

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
    /// once, before the first op.
    fn reserve(&mut self, layout: &Layout) -> Result<()>;

    /// dst = src. `src` may be shorter: the rest of `dst` stays.
    fn write<T: Element>(&mut self, dst: Slot<T>, src: &[T]) -> Result<()>;

    /// dst = what `fill` makes, in memory that the device copies from: for what is too large to be
    /// copied twice. `fill` finds garbage.
    fn fill<T: Element>(
        &mut self,
        dst: Slot<T>,
        fill: impl FnOnce(&mut [T]) -> Result<()>,
    ) -> Result<()>;

    /// As [`Memory::fill`], but while what is queued goes on, for a slot of
    /// [`Pool::Images`](crate::device::Pool): nothing that was queued since the prefetch before may
    /// use `dst`, and before it is used [`Memory::arrive`] is called.
    fn prefetch<T: Element>(
        &mut self,
        dst: Slot<T>,
        fill: impl FnOnce(&mut [T]) -> Result<()>,
    ) -> Result<()> {
        self.fill(dst, fill)
    }

    /// What is queued from now on finds in `slot` what was prefetched.
    fn arrive<T: Element>(&mut self, _slot: Slot<T>) -> Result<()> {
        Ok(())
    }

    /// dst = what `fill` makes of it, `piece` elements at a time (fewer at the end): it is told
    /// which element its piece begins at, and finds garbage. For what is too large for the host. A
    /// piece begins where a slot may.
    fn load<T: Element>(
        &mut self,
        dst: Slot<T>,
        piece: usize,
        mut fill: impl FnMut(usize, &mut [T]) -> Result<()>,
    ) -> Result<()> {
        for start in (0..dst.len).step_by(piece) {
            self.fill(dst.part(start, piece.min(dst.len - start)), |out| fill(start, out))?;
        }
        Ok(())
    }

    /// Returns the slot's elements after everything before it has run (a host synchronisation).
    fn read<T: Element>(&mut self, src: Slot<T>) -> Result<Vec<T>>;

    /// dst = 0.
    fn zero<T: Element>(&mut self, dst: Slot<T>) -> Result<()>;

    /// dst = src.
    fn copy<T: Element>(&mut self, dst: Slot<T>, src: Slot<T>) -> Result<()>;

    /// Runs `ops`, or replays what `recording` has of them. They must be the same ops on the same
    /// slots every time, and neither read nor write: what changes from step to step lies in slots
    /// written before.
    fn replay(
        &mut self,
        recording: &mut Self::Recording,
        ops: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<()>;

    /// Notes when everything before is done.
    fn mark(&mut self) -> Result<Self::Mark>;

    /// Seconds that the engine was busy between two marks (a host synchronisation).
    fn seconds(&mut self, start: Self::Mark, end: Self::Mark) -> Result<f64>;

    /// Names what `ops` queues, for profilers; ranges nest.
    fn range<T>(&mut self, name: &str, ops: impl FnOnce(&mut Self) -> T) -> T {
        self.enter(name);
        let out = ops(self);
        self.leave();
        out
    }

    /// Opens a named range, where a profiler may look on.
    fn enter(&mut self, _name: &str) {}

    /// Closes the range that was opened last.
    fn leave(&mut self) {}

    /// Opens or closes the window that a profiler records, where there is one.
    fn record(&mut self, _on: bool) -> Result<()> {
        Ok(())
    }
}
