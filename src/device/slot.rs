//! Slots, which name parts of a device's memory, and the pools that they lie in.

use std::fmt;
use std::marker::PhantomData;

/// A type of plain data that a slot can hold.
pub trait Element: bytemuck::Pod + Send + Sync {}
impl<T: bytemuck::Pod + Send + Sync> Element for T {}

/// Stands for the element type of activations in `Slot<Act>`. The real type is the engine's
/// [`Dtype`](crate::device::Dtype), known when the program runs.
#[derive(Clone, Copy, Debug)]
pub enum Act {}

/// Slots start at multiples of this many bytes: a cache line, and one AVX-512 register.
pub const ALIGN: usize = 64;

/// The pool of memory that a slot lies in. Data that lives equally long, and is written the same
/// way, shares a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The network's weights, their gradients, and Adam's moments m and v: one block each, with the
    /// parameters in the same order in all.
    Params,
    /// Data that outlives a step: running statistics, centroids, labels, counts.
    State,
    /// Activations and their gradients, placed by lifetime.
    Acts,
    /// Data that the host writes before a step: draws, indices, labels. One copy brings all of it.
    Staging,
    /// The images of one batch, or of two, so that one can be copied while a step reads the other.
    Images,
    /// All images of the data set, if they fit.
    Dataset,
    /// Memory that is private to an op while it runs.
    Scratch,
}

/// All pools, in the order of their numbers.
pub const POOLS: [Pool; 7] = [
    Pool::Params,
    Pool::State,
    Pool::Acts,
    Pool::Staging,
    Pool::Images,
    Pool::Dataset,
    Pool::Scratch,
];

/// A name for `len` elements at a fixed place in a pool. It is not the memory itself: it is `Copy`
/// and borrows nothing. `T` is the element type, or [`Act`].
pub struct Slot<T> {
    pub pool: Pool,
    /// Offset in the pool, in bytes: a multiple of [`ALIGN`].
    pub offset: usize,
    /// Number of elements.
    pub len: usize,
    /// Bytes of one element.
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
    /// A slot of `len` elements of `width` bytes each, from byte `offset` of `pool` on. Panics if
    /// the offset is not aligned.
    pub(super) fn of_width(pool: Pool, offset: usize, len: usize, width: usize) -> Self {
        assert!(offset.is_multiple_of(ALIGN), "slot at byte {offset} is not aligned to {ALIGN}");
        Slot { pool, offset, len, width, element: PhantomData }
    }

    /// A slot of length 0, which stands for a tensor that does not exist, such as a missing pyramid
    /// level. [`Layout::take`](crate::device::Layout::take) returns it for no elements; `release`
    /// ignores it.
    pub fn empty() -> Self {
        Slot::of_width(Pool::Acts, 0, 0, 1)
    }

    /// Elements `start..start + len` of this slot. Panics if they are not all inside, or if `start`
    /// does not fall on a multiple of [`ALIGN`] bytes.
    pub fn part(self, start: usize, len: usize) -> Self {
        let end = start + len;
        assert!(end <= self.len, "{start}..{end} is outside of {self:?}");
        Slot::of_width(self.pool, self.offset + start * self.width, len, self.width)
    }

    /// Size of the slot in bytes.
    pub fn bytes(self) -> usize {
        self.len * self.width
    }

    /// The same memory as a slot of bytes.
    pub fn erased(self) -> Slot<u8> {
        Slot::new(self.pool, self.offset, self.bytes())
    }
}

impl<T: Element> Slot<T> {
    /// A slot of `len` elements from byte `offset` of `pool` on. Most slots come from a
    /// [`Layout`](crate::device::Layout) instead.
    pub fn new(pool: Pool, offset: usize, len: usize) -> Self {
        Slot::of_width(pool, offset, len, size_of::<T>())
    }
}

impl Slot<f32> {
    /// The same memory as a slot of activations, for engines whose activations are f32.
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
