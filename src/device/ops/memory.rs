//! Pools and the traffic between host and device.

use crate::base::Result;
use crate::device::{Element, Layout, Slot};

pub trait Memory {
    /// The element type of activations and of the weights that convolutions read.
    type Act: Element;

    /// Bytes of scratch that the plans so far asked for: what an op needs while it runs, the maximum over all ops.
    fn scratch_bytes(&self) -> usize;

    /// Allocates every pool of `layout`, and the scratch that the plans so far asked for. Called once, before the first op.
    fn reserve(&mut self, layout: &Layout) -> Result<()>;

    /// dst = src. `src` may be shorter: the rest of `dst` stays.
    fn write<T: Element>(&mut self, dst: Slot<T>, src: &[T]) -> Result<()>;

    /// Returns the slot's elements after everything before it has run (a host synchronisation).
    fn read<T: Element>(&mut self, src: Slot<T>) -> Result<Vec<T>>;

    /// dst = 0.
    fn zero<T: Element>(&mut self, dst: Slot<T>) -> Result<()>;

    /// dst = src.
    fn copy<T: Element>(&mut self, dst: Slot<T>, src: Slot<T>) -> Result<()>;
}
