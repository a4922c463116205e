//! Names for memory.

use std::fmt;
use std::marker::PhantomData;

/// Plain data that a slot can hold.
pub trait Element: bytemuck::Pod + Send + Sync {}
impl<T: bytemuck::Pod + Send + Sync> Element for T {}

/// Stands for the element type of activations, which is an engine's
/// [`Dtype`](crate::device::Dtype).
#[derive(Clone, Copy, Debug)]
pub enum Act {}

/// Slots start on multiples of this many bytes: a cache line, and one AVX-512 register.
pub const ALIGN: usize = 64;

/// Where a slot lies: what lives equally long, and comes the same way, shares a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// weights | gradients | Adam's m | v: one block each, one order.
    Params,
    /// What outlives a step: running statistics, centroids, labels, counts.
    State,
    /// Activations and their gradients, placed by lifetime.
    Acts,
    /// What the host writes before a step: draws, indices, labels. One copy brings it.
    Staging,
    /// Images of a batch, or of two, so that one comes while a step reads the other.
    Images,
    /// Stored images, where all of them fit.
    Dataset,
    /// Private to an op while it runs.
    Scratch,
}

pub const POOLS: [Pool; 7] = [
    Pool::Params,
    Pool::State,
    Pool::Acts,
    Pool::Staging,
    Pool::Images,
    Pool::Dataset,
    Pool::Scratch,
];

/// `len` elements at a fixed place of a pool. A name for memory, not the memory: it is `Copy` and
/// borrows nothing. `T` is the element, or [`Act`].
pub struct Slot<T> {
    pub pool: Pool,
    /// Offset in the pool in bytes, a multiple of [`ALIGN`].
    pub offset: usize,
    pub len: usize,
    /// Bytes of an element.
    width: usize,
    element: PhantomData<fn() -> T>,
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Slot<T> {}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?}[{}; {}]", self.pool, self.offset, self.len)
    }
}

impl<T> Slot<T> {
    /// `len` elements of `width` bytes from byte `offset` of `pool` on.
    pub(super) fn of_width(pool: Pool, offset: usize, len: usize, width: usize) -> Self {
        assert!(offset.is_multiple_of(ALIGN), "slot at byte {offset} is not aligned to {ALIGN}");
        Slot { pool, offset, len, width, element: PhantomData }
    }

    /// No memory, for what is not there. Taking no elements gives it, releasing it does nothing.
    pub fn empty() -> Self {
        Slot::of_width(Pool::Acts, 0, 0, 1)
    }

    /// Elements `start..start + len` of this slot; `start` must fall on a multiple of [`ALIGN`]
    /// bytes.
    pub fn part(self, start: usize, len: usize) -> Self {
        let end = start + len;
        assert!(end <= self.len, "{start}..{end} is outside of {self:?}");
        Slot::of_width(self.pool, self.offset + start * self.width, len, self.width)
    }

    pub fn bytes(self) -> usize {
        self.len * self.width
    }

    /// The same memory, byte by byte.
    pub fn erased(self) -> Slot<u8> {
        Slot::new(self.pool, self.offset, self.bytes())
    }
}

impl<T: Element> Slot<T> {
    pub fn new(pool: Pool, offset: usize, len: usize) -> Self {
        Slot::of_width(pool, offset, len, size_of::<T>())
    }
}

impl Slot<f32> {
    /// The same memory as activations, where those are f32.
    pub fn as_acts(self) -> Slot<Act> {
        Slot::of_width(self.pool, self.offset, self.len, self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted_in_elements_of_any_width() {
        let acts = Slot::<Act>::of_width(Pool::Acts, 128, 96, 2);
        let part = acts.part(32, 64);
        assert_eq!((part.offset, part.len, part.bytes()), (192, 64, 128));
        let bytes = part.erased();
        assert_eq!((bytes.offset, bytes.len, bytes.bytes()), (192, 128, 128));
        assert_eq!(Slot::<f64>::empty().bytes(), 0);
    }

    #[test]
    #[should_panic(expected = "outside of")]
    fn a_part_lies_inside_of_its_slot() {
        Slot::<f32>::new(Pool::State, 0, 16).part(16, 1);
    }
}
