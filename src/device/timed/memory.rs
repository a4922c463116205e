//! Traffic with the host is passed on untimed; zeroing and copying are ops.

use crate::base::Result;
use crate::device::ops::Memory;
use crate::device::timed::{Timed, Work};
use crate::device::{Element, Layout, Slot};

impl<B: Memory> Memory for Timed<'_, B> {
    type Act = B::Act;
    type Recording = ();
    type Mark = B::Mark;

    fn decide(&mut self) -> Result<()> {
        self.dev.decide()
    }

    fn scratch_bytes(&self) -> usize {
        self.dev.scratch_bytes()
    }

    fn free_bytes(&self) -> Option<usize> {
        self.dev.free_bytes()
    }

    fn describe(&self) -> serde_json::Value {
        self.dev.describe()
    }

    fn choices(&self) -> Vec<String> {
        self.dev.choices()
    }

    fn reserve(&mut self, layout: &Layout) -> Result<()> {
        self.dev.reserve(layout)
    }

    fn write<T: Element>(&mut self, dst: Slot<T>, src: &[T]) -> Result<()> {
        self.dev.write(dst, src)
    }

    fn prefetch<T: Element>(
        &mut self,
        dst: Slot<T>,
        fill: impl FnOnce(&mut [T]) -> Result<()>,
    ) -> Result<()> {
        self.dev.prefetch(dst, fill)
    }

    fn arrive<T: Element>(&mut self, slot: Slot<T>) -> Result<()> {
        self.dev.arrive(slot)
    }

    fn load<T: Element>(
        &mut self,
        dst: Slot<T>,
        piece: usize,
        fill: impl FnMut(usize, &mut [T]) -> Result<()>,
    ) -> Result<()> {
        self.dev.load(dst, piece, fill)
    }

    fn fill<T: Element>(
        &mut self,
        dst: Slot<T>,
        fill: impl FnOnce(&mut [T]) -> Result<()>,
    ) -> Result<()> {
        self.dev.fill(dst, fill)
    }

    fn read<T: Element>(&mut self, src: Slot<T>) -> Result<Vec<T>> {
        self.dev.read(src)
    }

    fn zero<T: Element>(&mut self, dst: Slot<T>) -> Result<()> {
        self.time("zero".into(), Work { bytes: dst.bytes() as f64, flops: 0.0 }, |dev| {
            dev.zero(dst)
        })
    }

    fn copy<T: Element>(&mut self, dst: Slot<T>, src: Slot<T>) -> Result<()> {
        self.time("copy".into(), Work { bytes: 2.0 * dst.bytes() as f64, flops: 0.0 }, |dev| {
            dev.copy(dst, src)
        })
    }

    fn replay(&mut self, _: &mut (), mut ops: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        ops(self)
    }

    fn mark(&mut self) -> Result<B::Mark> {
        self.dev.mark()
    }

    fn seconds(&mut self, start: B::Mark, end: B::Mark) -> Result<f64> {
        self.dev.seconds(start, end)
    }

    fn enter(&mut self, name: &str) {
        self.dev.enter(name);
    }

    fn leave(&mut self) {
        self.dev.leave();
    }
}
