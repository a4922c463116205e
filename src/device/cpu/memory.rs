//! One allocation for all pools, handed out as disjoint mutable slices.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytemuck::{Pod, Zeroable};

use crate::base::Result;
use crate::base::memory::available;
use crate::device::cpu::iic::Tables;
use crate::device::engine::Fill;
use crate::device::{
    ALIGN, Act, Dtype, Element, Engine, Layout, Mark, POOLS, Pool, Recording, Slot, Trace,
};

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
    /// What plans of IIC's loss computed ahead, by their numbers. No other plan keeps anything.
    pub(super) tables: Vec<Arc<Tables>>,
    trace: Trace,
}

impl Cpu {
    /// Threads are rayon's: install a pool around the calls to choose their number.
    pub fn new() -> Self {
        Cpu {
            lines: Vec::new(),
            base: [0; POOLS.len()],
            scratch: 0,
            simd: pulp::Arch::new(),
            tables: Vec::new(),
            trace: Trace::default(),
        }
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
    pub(super) fn get<S: Slots>(&mut self, slots: S) -> S::Slices<'_> {
        slots.slices(self)
    }

    /// The lines of the allocation that a slot covers.
    fn lines_of<T>(&self, slot: Slot<T>) -> Range<usize> {
        let start = self.base[slot.pool as usize] + slot.offset / ALIGN;
        start..start + slot.bytes().div_ceil(ALIGN)
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Cpu::new()
    }
}

/// What [`Cpu::get`] resolves to a slice of memory: a slot, or one that may be missing.
pub(super) trait OneSlot {
    type Slice<'a>;

    /// The lines of the allocation that it covers.
    fn range(&self, cpu: &Cpu) -> Range<usize>;

    /// The slice, out of the bytes of these lines.
    fn slice<'a>(&self, bytes: &'a mut [u8]) -> Self::Slice<'a>;
}

impl<T: Element> OneSlot for Slot<T> {
    type Slice<'a> = &'a mut [T];

    fn range(&self, cpu: &Cpu) -> Range<usize> {
        cpu.lines_of(*self)
    }

    fn slice<'a>(&self, bytes: &'a mut [u8]) -> &'a mut [T] {
        bytemuck::cast_slice_mut(&mut bytes[..self.bytes()])
    }
}

/// Activations of this engine are f32.
impl OneSlot for Slot<Act> {
    type Slice<'a> = &'a mut [f32];

    fn range(&self, cpu: &Cpu) -> Range<usize> {
        cpu.lines_of(*self)
    }

    fn slice<'a>(&self, bytes: &'a mut [u8]) -> &'a mut [f32] {
        bytemuck::cast_slice_mut(&mut bytes[..self.bytes()])
    }
}

impl<S: OneSlot> OneSlot for Option<S> {
    type Slice<'a> = Option<S::Slice<'a>>;

    fn range(&self, cpu: &Cpu) -> Range<usize> {
        self.as_ref().map_or(0..0, |slot| slot.range(cpu))
    }

    fn slice<'a>(&self, bytes: &'a mut [u8]) -> Self::Slice<'a> {
        self.as_ref().map(|slot| slot.slice(bytes))
    }
}

/// A tuple of slots, resolved to as many slices.
pub(super) trait Slots {
    type Slices<'a>;
    fn slices(self, cpu: &mut Cpu) -> Self::Slices<'_>;
}

macro_rules! slots {
    ($($slot:ident),+) => {
        impl<$($slot: OneSlot),+> Slots for ($($slot,)+) {
            type Slices<'a> = ($($slot::Slice<'a>,)+);

            #[allow(non_snake_case)]
            fn slices(self, cpu: &mut Cpu) -> Self::Slices<'_> {
                let ($($slot,)+) = self;
                let ranges = [$($slot.range(cpu)),+];
                let (shown, total) = (ranges.clone(), cpu.lines.len());
                match cpu.lines.get_disjoint_mut(ranges) {
                    Ok(lines) => {
                        let mut lines = lines.into_iter();
                        ($($slot.slice(bytemuck::cast_slice_mut(lines.next().unwrap_or_default())),)+)
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

impl Engine for Cpu {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

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

    fn write_bytes(&mut self, dst: Slot<u8>, src: &[u8]) -> Result<()> {
        let (dst,) = self.get((dst,));
        dst.copy_from_slice(src);
        Ok(())
    }

    fn fill_bytes(&mut self, dst: Slot<u8>, fill: Fill) -> Result<()> {
        let (dst,) = self.get((dst,));
        fill(dst)
    }

    fn read_bytes(&mut self, dst: &mut [u8], src: Slot<u8>) -> Result<()> {
        let (src,) = self.get((src,));
        dst.copy_from_slice(src);
        Ok(())
    }

    fn zero_bytes(&mut self, dst: Slot<u8>) -> Result<()> {
        let (dst,) = self.get((dst,));
        dst.fill(0);
        Ok(())
    }

    fn copy_bytes(&mut self, dst: Slot<u8>, src: Slot<u8>) -> Result<()> {
        let (dst, src) = self.get((dst, src));
        dst.copy_from_slice(src);
        Ok(())
    }

    fn replay_ops(
        &mut self,
        _: &mut Recording,
        ops: &mut dyn FnMut(&mut dyn Engine) -> Result<()>,
    ) -> Result<()> {
        ops(self)
    }

    fn mark(&mut self) -> Result<Mark> {
        Ok(Mark(Box::new(Instant::now())))
    }

    fn seconds(&mut self, start: &Mark, end: &Mark) -> Result<f64> {
        let at = |mark: &Mark| *mark.0.downcast_ref::<Instant>().expect("a mark of this engine");
        Ok((at(end) - at(start)).as_secs_f64())
    }

    fn trace(&mut self) -> &mut Trace {
        &mut self.trace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_different_pools_and_types_are_resolved_together() {
        let mut layout = Layout::new(Dtype::F32);
        let a = layout.take::<f32>(Pool::Acts, "a", 5);
        let b = layout.take::<u16>(Pool::State, "b", 7);
        let mut cpu = Cpu::new();
        cpu.reserve(&layout).unwrap();
        let dev: &mut dyn Engine = &mut cpu;
        dev.write(a, &[1., 2., 3., 4., 5.]).unwrap();
        dev.write(b, &[9; 7]).unwrap();
        let (x, none, y) = cpu.get((a, None::<Slot<f32>>, b));
        assert_eq!((x[4], none.is_none(), y.len()), (5.0, true, 7));
        y[6] = 1;
        let dev: &mut dyn Engine = &mut cpu;
        assert_eq!(dev.read(b).unwrap(), [9, 9, 9, 9, 9, 9, 1]);
        assert_eq!(dev.read(a).unwrap(), [1., 2., 3., 4., 5.]);
    }

    #[test]
    #[should_panic(expected = "overlap")]
    fn an_op_cannot_be_given_the_same_memory_twice() {
        let mut layout = Layout::new(Dtype::F32);
        let a = layout.take::<f32>(Pool::Acts, "a", 5);
        let mut cpu = Cpu::new();
        cpu.reserve(&layout).unwrap();
        cpu.get((a, a));
    }
}
