//! The engine itself: one allocation for all pools, and what plans asked for.

use std::sync::Arc;
use std::time::Instant;

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use crate::base::Result;
use crate::base::memory::available;
use crate::device::cpu::gauge::Others;
use crate::device::cpu::iic::Tables;
use crate::device::engine::Fill;
use crate::device::{
    ALIGN, Dtype, Engine, Gauge, Layout, Mark, POOLS, Pool, Ran, Slot, Taken, Trace,
};

/// The unit of the allocation, so that every slot is aligned to a cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line([u8; ALIGN]);

/// Bytes that a core copies or zeroes at a time. Less is not worth a second one.
const PIECE: usize = 1 << 18;

/// The CPU engine.
pub struct Cpu {
    pub(super) lines: Vec<Line>,
    /// The first line of each pool.
    pub(super) base: [usize; POOLS.len()],
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
}

impl Default for Cpu {
    fn default() -> Self {
        Cpu::new()
    }
}

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
        let wanted = total * ALIGN + layout.beside_bytes();
        // NOTE: Linux promises memory that it does not have, and kills the process that then uses
        // it.
        if let Some(free) = available().filter(|&free| free < wanted as u64) {
            return Err(layout.too_large("memory", wanted, free as usize));
        }
        self.lines.try_reserve_exact(total).map_err(|_| layout.too_large("memory", wanted, 0))?;
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
        dst.par_chunks_mut(PIECE).for_each(|dst| dst.fill(0));
        Ok(())
    }

    fn copy_bytes(&mut self, dst: Slot<u8>, src: Slot<u8>) -> Result<()> {
        let (dst, src) = self.get((dst, src));
        let pieces = dst.par_chunks_mut(PIECE).zip(src.par_chunks(PIECE));
        pieces.for_each(|(dst, src)| dst.copy_from_slice(src));
        Ok(())
    }

    fn replay_ops(
        &mut self,
        _: &mut Taken,
        ops: &mut dyn FnMut(&mut dyn Engine) -> Result<()>,
    ) -> Result<Ran> {
        ops(self).map(|()| Ran::Plain)
    }

    fn mark(&mut self) -> Result<Mark> {
        Ok(Mark(Box::new(Instant::now())))
    }

    fn seconds(&mut self, start: &Mark, end: &Mark) -> Result<f64> {
        let at = |mark: &Mark| *mark.0.downcast_ref::<Instant>().expect("a mark of this engine");
        Ok((at(end) - at(start)).as_secs_f64())
    }

    fn gauge(&self) -> Option<Box<dyn Gauge>> {
        Some(Box::new(Others::new()))
    }

    fn trace(&mut self) -> &mut Trace {
        &mut self.trace
    }
}
