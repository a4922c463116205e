//! One allocation for all pools, handed out as disjoint mutable slices.

use std::ops::Range;
use std::time::Instant;

use bytemuck::{Pod, Zeroable};

use crate::base::memory::available;
use crate::base::{Error, Result};
use crate::device::arena::{ALIGN, POOLS};
use crate::device::ops::Memory;
use crate::device::{Element, Layout, Pool, Slot};

/// The unit of the allocation, so that every slot is aligned to a cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; ALIGN]);

/// The CPU engine.
pub struct Cpu {
    lines: Vec<Line>,
    /// First line of each pool.
    base: [usize; POOLS.len()],
    /// Bytes of scratch that the plans asked for.
    scratch: usize,
    /// The widest vector unit of this machine.
    pub(super) simd: pulp::Arch,
}

impl Cpu {
    /// Threads are rayon's: install a pool around the calls to choose their number.
    pub fn new() -> Self {
        Cpu { lines: Vec::new(), base: [0; POOLS.len()], scratch: 0, simd: pulp::Arch::new() }
    }

    /// The name of the widest vector unit in use.
    pub fn vector_unit(&self) -> &'static str {
        let name = format!("{:?}", self.simd);
        [("V4", "AVX-512"), ("V3", "AVX2"), ("Neon", "NEON")]
            .into_iter()
            .find_map(|(start, unit)| name.starts_with(start).then_some(unit))
            .unwrap_or("no")
    }

    /// Asks for at least `len` f32 of scratch; called by plans.
    pub(super) fn ask_scratch(&mut self, len: usize) {
        self.scratch = self.scratch.max(len * size_of::<f32>());
    }

    /// The scratch of one op: the first `len` f32. What lies there from before is garbage.
    pub(super) fn scratch(&self, len: usize) -> Slot<f32> {
        assert!(
            len * size_of::<f32>() <= self.scratch,
            "an op uses scratch that its plan did not ask for"
        );
        Slot::new(Pool::Scratch, 0, len)
    }

    /// All of the scratch, for ops that cut it by threads.
    pub(super) fn whole_scratch(&self) -> Slot<f32> {
        self.scratch(self.scratch / size_of::<f32>())
    }

    /// Mutable slices of several slots at once: `let (y, x) = cpu.get((y, x));`. Panics where two
    /// of them overlap.
    pub(super) fn get<S: Slots>(&mut self, slots: S) -> S::Views<'_> {
        slots.views(self)
    }

    fn lines_of<T: Element>(&self, slot: Slot<T>) -> Range<usize> {
        let start = self.base[slot.pool as usize] + slot.offset / ALIGN;
        start..start + slot.bytes().div_ceil(ALIGN)
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Cpu::new()
    }
}

/// A slot, or maybe one: what [`Cpu::get`] resolves.
pub(super) trait OneSlot {
    type View<'a>;
    fn range(&self, cpu: &Cpu) -> Range<usize>;
    fn view<'a>(&self, lines: &'a mut [u8]) -> Self::View<'a>;
}

impl<T: Element> OneSlot for Slot<T> {
    type View<'a> = &'a mut [T];

    fn range(&self, cpu: &Cpu) -> Range<usize> {
        cpu.lines_of(*self)
    }

    fn view<'a>(&self, bytes: &'a mut [u8]) -> &'a mut [T] {
        bytemuck::cast_slice_mut(&mut bytes[..self.len * size_of::<T>()])
    }
}

impl<T: Element> OneSlot for Option<Slot<T>> {
    type View<'a> = Option<&'a mut [T]>;

    fn range(&self, cpu: &Cpu) -> Range<usize> {
        self.map_or(0..0, |s| cpu.lines_of(s))
    }

    fn view<'a>(&self, bytes: &'a mut [u8]) -> Option<&'a mut [T]> {
        self.map(|s| s.view(bytes))
    }
}

/// A tuple of slots.
pub(super) trait Slots {
    type Views<'a>;
    fn views(self, cpu: &mut Cpu) -> Self::Views<'_>;
}

macro_rules! slots {
    ($($slot:ident),+) => {
        impl<$($slot: OneSlot),+> Slots for ($($slot,)+) {
            type Views<'a> = ($($slot::View<'a>,)+);

            #[allow(non_snake_case)]
            fn views(self, cpu: &mut Cpu) -> Self::Views<'_> {
                let ($($slot,)+) = self;
                let ranges = [$($slot.range(cpu)),+];
                let (shown, total) = (ranges.clone(), cpu.lines.len());
                match cpu.lines.get_disjoint_mut(ranges) {
                    Ok(lines) => {
                        let mut lines = lines.into_iter();
                        ($($slot.view(bytemuck::cast_slice_mut(lines.next().unwrap_or_default())),)+)
                    }
                    Err(e) => panic!("slots of one op: {e} (lines {shown:?} of {total})"),
                }
            }
        }
    };
}

slots!(A);
slots!(A, B);
slots!(A, B, C);
slots!(A, B, C, D);
slots!(A, B, C, D, E);
slots!(A, B, C, D, E, F);
slots!(A, B, C, D, E, F, G);
slots!(A, B, C, D, E, F, G, H);
slots!(A, B, C, D, E, F, G, H, I);
slots!(A, B, C, D, E, F, G, H, I, J);
slots!(A, B, C, D, E, F, G, H, I, J, K, L, M, N);
slots!(A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P);
slots!(A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T);

impl Memory for Cpu {
    type Act = f32;
    type Recording = ();
    type Mark = Instant;

    fn scratch_bytes(&self) -> usize {
        self.scratch
    }

    fn describe(&self) -> serde_json::Value {
        let threads = rayon::current_num_threads();
        serde_json::json!({ "name": format!("CPU, {threads} threads, {}", self.vector_unit()) })
    }

    fn free_bytes(&self) -> Option<usize> {
        None
    }

    fn reserve(&mut self, layout: &Layout) -> Result<()> {
        let mut total = 0;
        for pool in POOLS {
            self.base[pool as usize] = total;
            let bytes =
                layout.bytes(pool).max(if pool == Pool::Scratch { self.scratch } else { 0 });
            total += bytes.div_ceil(ALIGN);
        }
        self.lines = Vec::new();
        // NOTE: Linux promises memory that it does not have, and kills the process that then uses
        // it.
        if let Some(free) = available().filter(|&free| free < (total * ALIGN) as u64) {
            return Err(layout.too_large("memory", total * ALIGN, free as usize));
        }
        self.lines
            .try_reserve_exact(total)
            .map_err(|_| layout.too_large("memory", total * ALIGN, 0))?;
        self.lines.resize(total, Line([0; ALIGN]));
        Ok(())
    }

    fn write<T: Element>(&mut self, dst: Slot<T>, src: &[T]) -> Result<()> {
        if src.len() > dst.len {
            return Err(Error::Shape { op: "write", what: "src", got: src.len(), want: dst.len });
        }
        let (dst,) = self.get((dst,));
        dst[..src.len()].copy_from_slice(src);
        Ok(())
    }

    fn fill<T: Element>(
        &mut self,
        dst: Slot<T>,
        fill: impl FnOnce(&mut [T]) -> Result<()>,
    ) -> Result<()> {
        let (dst,) = self.get((dst,));
        fill(dst)
    }

    fn read<T: Element>(&mut self, src: Slot<T>) -> Result<Vec<T>> {
        let (src,) = self.get((src,));
        Ok(src.to_vec())
    }

    fn zero<T: Element>(&mut self, dst: Slot<T>) -> Result<()> {
        let (dst,) = self.get((dst,));
        dst.fill(T::zeroed());
        Ok(())
    }

    fn copy<T: Element>(&mut self, dst: Slot<T>, src: Slot<T>) -> Result<()> {
        if src.len != dst.len {
            return Err(Error::Shape { op: "copy", what: "src", got: src.len, want: dst.len });
        }
        let (dst, src) = self.get((dst, src));
        dst.copy_from_slice(src);
        Ok(())
    }

    fn replay(&mut self, _: &mut (), mut ops: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        ops(self)
    }

    fn mark(&mut self) -> Result<Instant> {
        Ok(Instant::now())
    }

    fn seconds(&mut self, start: Instant, end: Instant) -> Result<f64> {
        Ok((end - start).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_different_pools_and_types_are_resolved_together() {
        let mut layout = Layout::default();
        let a = layout.take::<f32>(Pool::Acts, "a", 5);
        let b = layout.take::<u16>(Pool::State, "b", 7);
        let mut cpu = Cpu::new();
        cpu.reserve(&layout).unwrap();
        cpu.write(a, &[1., 2., 3., 4., 5.]).unwrap();
        cpu.write(b, &[9; 7]).unwrap();
        let (x, none, y) = cpu.get((a, None::<Slot<f32>>, b));
        assert_eq!((x[4], none.is_none(), y.len()), (5.0, true, 7));
        y[6] = 1;
        assert_eq!(cpu.read(b).unwrap(), [9, 9, 9, 9, 9, 9, 1]);
        assert_eq!(cpu.read(a).unwrap(), [1., 2., 3., 4., 5.]);
    }

    #[test]
    #[should_panic(expected = "overlap")]
    fn an_op_cannot_be_given_the_same_memory_twice() {
        let mut layout = Layout::default();
        let a = layout.take::<f32>(Pool::Acts, "a", 5);
        let mut cpu = Cpu::new();
        cpu.reserve(&layout).unwrap();
        cpu.get((a, a));
    }
}
