//! Sizes first: a [`Layout`] hands out [`Slot`]s, adds up what each pool needs, and an engine
//! allocates each pool once.

use std::fmt::{self, Display};
use std::marker::PhantomData;

use crate::base::Error;

/// Plain data that a slot can hold.
pub trait Element: bytemuck::Pod + Send + Sync {}
impl<T: bytemuck::Pod + Send + Sync> Element for T {}

/// The element type of activations.
pub trait Activation: Element + PartialEq + std::fmt::Debug {
    /// As kernels and flags call it.
    const NAME: &'static str;

    /// Rounds to nearest, ties to even.
    fn round(x: f32) -> Self;

    fn widen(self) -> f32;

    /// What the loss is multiplied by so that the gradients of activations are representable, a
    /// power of two; gradients of parameters are divided by it. A mean over `pixels` makes a
    /// pixel's gradient as small as its inverse.
    fn loss_scale(_pixels: usize) -> f32 {
        1.0
    }
}

impl Activation for f32 {
    const NAME: &'static str = "f32";

    fn round(x: f32) -> Self {
        x
    }

    fn widen(self) -> f32 {
        self
    }
}

impl Activation for half::bf16 {
    const NAME: &'static str = "bf16";

    fn round(x: f32) -> Self {
        half::bf16::from_f32(x)
    }

    fn widen(self) -> f32 {
        self.to_f32()
    }
}

impl Activation for half::f16 {
    const NAME: &'static str = "f16";

    /// A pixel's gradient is then some 2⁻⁶ over the norm of its features, amid f16's 2⁻¹⁴ … 2¹⁶.
    fn loss_scale(pixels: usize) -> f32 {
        pixels.div_ceil(16).next_power_of_two() as f32
    }

    fn round(x: f32) -> Self {
        half::f16::from_f32(x)
    }

    fn widen(self) -> f32 {
        self.to_f32()
    }
}

/// Slots start on multiples of this many bytes: a cache line, and one AVX-512 register.
pub const ALIGN: usize = 64;

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

/// `len` elements of `T` at a fixed place of a pool. A name for memory, not the memory: it is
/// `Copy` and borrows nothing.
pub struct Slot<T> {
    pub pool: Pool,
    /// Offset in the pool in bytes, a multiple of [`ALIGN`].
    pub offset: usize,
    pub len: usize,
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

impl<T: Element> Slot<T> {
    pub fn new(pool: Pool, offset: usize, len: usize) -> Self {
        assert!(offset.is_multiple_of(ALIGN), "slot at byte {offset} is not aligned to {ALIGN}");
        Slot { pool, offset, len, element: PhantomData }
    }

    /// No memory, for what is not there. Taking no elements gives it, releasing it does nothing.
    pub fn empty() -> Self {
        Slot::new(Pool::Acts, 0, 0)
    }

    /// Elements `start..start + len` of this slot; `start` must fall on a multiple of [`ALIGN`]
    /// bytes.
    pub fn part(self, start: usize, len: usize) -> Self {
        assert!(start + len <= self.len, "{start}..{} is outside of {self:?}", start + len);
        Slot::new(self.pool, self.offset + start * size_of::<T>(), len)
    }

    pub fn bytes(self) -> usize {
        self.len * size_of::<T>()
    }
}

/// One line of the plan table.
#[derive(Clone, Debug)]
struct Row {
    pool: Pool,
    name: String,
    offset: usize,
    bytes: usize,
}

#[derive(Clone, Debug, Default)]
struct PoolPlan {
    /// Live intervals (start, end) in bytes, sorted.
    live: Vec<(usize, usize)>,
    bytes: usize,
}

/// The plan of all pools. Slots of a pool are placed first-fit around those that are still alive.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    pools: [PoolPlan; POOLS.len()],
    rows: Vec<Row>,
}

impl Layout {
    /// A slot of `len` elements, alive until [`Layout::release`] or [`Layout::restart`].
    pub fn take<T: Element>(&mut self, pool: Pool, name: impl Display, len: usize) -> Slot<T> {
        if len == 0 {
            return Slot::empty();
        }
        let bytes = (len * size_of::<T>()).next_multiple_of(ALIGN);
        let plan = &mut self.pools[pool as usize];
        let (mut offset, mut at) = (0, plan.live.len());
        for (i, &(start, end)) in plan.live.iter().enumerate() {
            if offset + bytes <= start {
                at = i;
                break;
            }
            offset = end;
        }
        plan.live.insert(at, (offset, offset + bytes));
        plan.bytes = plan.bytes.max(offset + bytes);
        self.rows.push(Row { pool, name: name.to_string(), offset, bytes });
        Slot::new(pool, offset, len)
    }

    /// Ends a slot's life: what is taken later may lie there.
    pub fn release<T: Element>(&mut self, slot: Slot<T>) {
        if slot.len == 0 {
            return;
        }
        let live = &mut self.pools[slot.pool as usize].live;
        let at = live
            .iter()
            .position(|&(start, _)| start == slot.offset)
            .expect("released slot is alive");
        live.remove(at);
    }

    /// Ends the life of every slot of `pool`: the next program is laid over the same memory.
    pub fn restart(&mut self, pool: Pool) {
        self.pools[pool as usize].live.clear();
    }

    pub fn bytes(&self, pool: Pool) -> usize {
        self.pools[pool as usize].bytes
    }

    /// The refusal of a plan of `total` bytes, scratch included, where `free` are free.
    pub fn too_large(&self, kind: &'static str, total: usize, free: usize) -> Error {
        // What a step reads and makes grows with the batch. The largest op's scratch may, or may
        // not.
        let grows = [Pool::Acts, Pool::Staging, Pool::Images]
            .map(|pool| self.bytes(pool))
            .iter()
            .sum::<usize>()
            .max(1);
        let fixed = total.saturating_sub(grows);
        let share = (free > fixed).then(|| (free - fixed) as f64 / grows as f64);
        Error::Memory { kind, wanted: total >> 20, free: free >> 20, fixed: fixed >> 20, share }
    }

    pub fn total_bytes(&self) -> usize {
        POOLS.iter().map(|&p| self.bytes(p)).sum()
    }
}

/// The plan as a table: pool, name, offset, MiB.
impl Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
        for pool in POOLS {
            writeln!(
                f,
                "{:<8} {:>10.2} MiB",
                format!("{pool:?}").to_lowercase(),
                mib(self.bytes(pool))
            )?;
            for r in self.rows.iter().filter(|r| r.pool == pool) {
                writeln!(f, "  {:<44} at {:>12} {:>10.3} MiB", r.name, r.offset, mib(r.bytes))?;
            }
        }
        write!(f, "total    {:>10.2} MiB", mib(self.total_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_that_live_together_do_not_overlap_and_dead_ones_are_reused() {
        let mut l = Layout::default();
        let a = l.take::<f32>(Pool::Acts, "a", 17);
        let b = l.take::<u8>(Pool::Acts, "b", 65);
        let c = l.take::<f32>(Pool::Acts, "c", 3);
        assert_eq!((a.offset, b.offset, c.offset), (0, 128, 256));
        l.release(b);
        let d = l.take::<f32>(Pool::Acts, "d", 33);
        assert_eq!(d.offset, 320, "does not fit the gap of 128 bytes");
        assert_eq!(l.take::<f32>(Pool::Acts, "e", 32).offset, 128);
        assert_eq!(l.bytes(Pool::Acts), 320 + 192);
        l.restart(Pool::Acts);
        assert_eq!(l.take::<f32>(Pool::Acts, "f", 1).offset, 0);
        assert_eq!(l.bytes(Pool::Acts), 320 + 192, "a pool is as large as its largest program");
        assert!(l.to_string().contains("e  "));
    }

    #[test]
    fn an_empty_slot_takes_nothing_and_ends_nobodys_life() {
        let mut l = Layout::default();
        let a = l.take::<f32>(Pool::Acts, "a", 16);
        let none = l.take::<f32>(Pool::Acts, "none", 0);
        l.release(none);
        assert_eq!((none.len, l.bytes(Pool::Acts)), (0, 64));
        l.release(a);
    }
}
