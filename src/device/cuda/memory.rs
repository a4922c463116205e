//! Pools on the device, and what is done to slots of them.

use cudarc::driver::{result, sys};

use crate::base::Result;
use crate::base::memory::available;
use crate::device::cuda::Cuda;
use crate::device::cuda::error::driver_error;
use crate::device::cuda::event::Event;
use crate::device::cuda::nvml::Nvml;
use crate::device::cuda::staging::{Pinned, Staged};
use crate::device::engine::Fill;
use crate::device::{Dtype, Engine, Gauge, Layout, Mark, POOLS, Pool, Ran, Slot, Taken, Trace};

/// What `reserve` took.
#[derive(Default)]
pub(super) struct Reserved {
    /// Bytes of all pools.
    pub total: usize,
    /// Bytes of the scratch pool.
    pub scratch: usize,
}

/// Of `free` bytes, those that pools may take. The driver wants the others once work begins: it
/// loads kernels and cuDNN's engines at their first launch, gives threads memory for what spills,
/// and keeps the nodes of recorded steps.
pub fn usable(free: usize) -> usize {
    free.saturating_sub((1 << 30) + free / 50)
}

impl Cuda {
    /// Returns what `reserve` took, after everything queued has run.
    pub(super) fn free_pools(&mut self) {
        let _ = self.synchronize("freeing memory");
        // SAFETY: the stream lives as long as the engine. A prefetch that nobody used may still be
        // on its way.
        let _ = unsafe { result::stream::synchronize(self.aside) };
        for address in self.pools.iter_mut().filter(|address| **address != 0) {
            // SAFETY: the address came from the driver, is freed once, and nothing queued uses it
            // any more.
            let _ = unsafe { result::free_sync(std::mem::take(address)) };
        }
        self.staged = Staged::default();
        self.reserved = Reserved::default();
    }
}

/// The event of a mark. It is this engine's: marks are compared with those of one engine.
fn event(mark: &Mark) -> &Event {
    mark.0.downcast_ref().expect("a mark of this engine")
}

impl Engine for Cuda {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn decide(&mut self) -> Result<()> {
        self.decide_convolutions()
    }

    fn scratch_bytes(&self) -> usize {
        self.scratch
    }

    /// With what `reserve` will return first: a second plan decides as the first did.
    fn free_bytes(&self) -> Option<usize> {
        result::mem_get_info().ok().map(|(free, _)| usable(free + self.reserved.total))
    }

    fn describe(&self) -> serde_json::Value {
        let mut sheet = serde_json::to_value(&self.sheet).expect("a sheet is plain data");
        sheet["cudnn"] = self.cudnn.version().into();
        sheet
    }

    fn choices(&self) -> Vec<String> {
        self.chosen_engines().iter().map(|choice| choice.to_string()).collect()
    }

    fn reserve(&mut self, layout: &Layout) -> Result<()> {
        self.free_pools();
        self.decide()?;
        let sizes = POOLS.map(|pool| match pool {
            Pool::Scratch => layout.bytes(pool).max(self.scratch),
            _ => layout.bytes(pool),
        });
        let beside = layout.beside_bytes();
        if let Some(free) = available().filter(|&free| free < beside as u64) {
            return Err(layout.too_large("the host's memory", beside, free as usize));
        }
        let total: usize = sizes.iter().sum();
        let doing = "reserving memory";
        let (free, _) = result::mem_get_info().map_err(|e| driver_error(doing, e))?;
        if total > usable(free) {
            return Err(layout.too_large(
                "GPU memory beside the driver's own",
                total,
                usable(free),
            ));
        }
        for (pool, &bytes) in POOLS.iter().zip(&sizes).filter(|(_, bytes)| **bytes > 0) {
            // SAFETY: the address is kept and freed once, by `free_pools`.
            let address = unsafe { result::malloc_sync(bytes) };
            self.pools[*pool as usize] = address.map_err(|e| driver_error(doing, e))?;
            self.reserved.total += bytes;
        }
        self.reserved.scratch = sizes[Pool::Scratch as usize];
        self.staged = Staged::new(layout)?;
        Ok(())
    }

    fn write_bytes(&mut self, dst: Slot<u8>, src: &[u8]) -> Result<()> {
        if dst.pool == Pool::Staging {
            return self.put(dst, &mut |mirror| {
                mirror.copy_from_slice(src);
                Ok(())
            });
        }
        assert_eq!(src.len(), dst.len, "the typed write makes them as long");
        // NOTE: on the engine's stream. A synchronous copy from pageable memory returns before its
        // last bytes have arrived, and only the null stream would wait for them, which this one
        // does not know. SAFETY: the slot is as long as `src` (checked above), which lives until
        // the copy has been waited for.
        unsafe { result::memcpy_htod_async(self.address(dst), src, self.stream) }
            .map_err(|e| driver_error("write", e))?;
        self.synchronize("write")
    }

    fn fill_bytes(&mut self, dst: Slot<u8>, fill: Fill) -> Result<()> {
        match dst.pool {
            Pool::Staging => self.put(dst, fill),
            Pool::Images => self.put_images(dst, self.stream, fill),
            _ => {
                let mut host = Pinned::new(dst.len)?;
                let host = host.part(0..dst.len);
                fill(host)?;
                self.write_bytes(dst, host)
            }
        }
    }

    fn prefetch_bytes(&mut self, dst: Slot<u8>, fill: Fill) -> Result<()> {
        self.put_aside(dst, fill)
    }

    fn arrive(&mut self, slot: Slot<u8>) -> Result<()> {
        self.gate_on(slot)
    }

    fn load_bytes(
        &mut self,
        dst: Slot<u8>,
        piece: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        self.put_pieces(dst, piece, fill)
    }

    fn read_bytes(&mut self, dst: &mut [u8], src: Slot<u8>) -> Result<()> {
        self.flush()?;
        if src.len > 0 {
            assert_eq!(dst.len(), src.len, "the typed read makes them as long");
            // SAFETY: `dst` is as long as the slot (checked above), and borrowed until the copy has
            // been waited for.
            unsafe { result::memcpy_dtoh_async(dst, self.address(src), self.stream) }
                .map_err(|e| driver_error("read", e))?;
        }
        self.synchronize("read")
    }

    fn zero_bytes(&mut self, dst: Slot<u8>) -> Result<()> {
        if dst.len == 0 {
            return Ok(());
        }
        self.flush()?;
        // SAFETY: the range is the slot's.
        let queued = unsafe { result::memset_d8_async(self.address(dst), 0, dst.len, self.stream) };
        queued.map_err(|e| driver_error("zero", e))
    }

    fn copy_bytes(&mut self, dst: Slot<u8>, src: Slot<u8>) -> Result<()> {
        if dst.len == 0 {
            return Ok(());
        }
        self.flush()?;
        let (to, from) = (self.address(dst), self.address(src));
        // SAFETY: both ranges are slots, of the same length as the typed copy has checked.
        let queued = unsafe { result::memcpy_dtod_async(to, from, dst.len, self.stream) };
        queued.map_err(|e| driver_error("copy", e))
    }

    fn replay_ops(
        &mut self,
        taken: &mut Taken,
        ops: &mut dyn FnMut(&mut dyn Engine) -> Result<()>,
    ) -> Result<Ran> {
        self.flush()?;
        self.record_or_replay(taken, ops)
    }

    fn mark(&mut self) -> Result<Mark> {
        self.flush()?;
        let e = |e| driver_error("mark", e);
        let mark = Event::new(true).map_err(e)?;
        let record = if self.recording { Event::record_each_replay } else { Event::record };
        record(&mark, self.stream).map_err(e)?;
        Ok(Mark(Box::new(mark)))
    }

    fn seconds(&mut self, start: &Mark, end: &Mark) -> Result<f64> {
        let (start, end) = (event(start), event(end));
        let ms = end.wait().and_then(|()| end.since(start));
        ms.map(|ms| f64::from(ms) / 1000.0).map_err(|e| driver_error("mark", e))
    }

    fn enter_range(&mut self, name: &str) {
        if let Some(nvtx) = self.nvtx {
            nvtx.push(name);
        }
    }

    fn leave_range(&mut self) {
        if let Some(nvtx) = self.nvtx {
            nvtx.pop();
        }
    }

    fn profile(&mut self, on: bool) -> Result<()> {
        self.synchronize("profiler window")?;
        // SAFETY: takes nothing; without a profiler it does nothing.
        let set = unsafe { if on { sys::cuProfilerStart() } else { sys::cuProfilerStop() } };
        set.result().map_err(|e| driver_error("profiler window", e))
    }

    fn gauge(&self) -> Option<Box<dyn Gauge>> {
        Nvml::open(&self.sheet.uuid).map(|nvml| Box::new(nvml) as Box<dyn Gauge>)
    }

    fn trace(&mut self) -> &mut Trace {
        &mut self.trace
    }
}
