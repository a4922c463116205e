//! Pools on the device, pinned staging on the host, and steps recorded as CUDA graphs.

use std::collections::BTreeMap;

use cudarc::driver::{result, sys};

use crate::base::{Error, Result};
use crate::device::arena::POOLS;
use crate::device::cuda::context::{Cuda, driver_error};
use crate::device::ops::Memory;
use crate::device::{Activation, Element, Layout, Pool, Slot};

/// Pinned memory that mirrors the staging pool: a write goes there first, so that the copy to the device is asynchronous.
pub(super) struct Staged {
    host: *mut u8,
    bytes: usize,
    /// By offset of the slot: when its last copy has left the mirror.
    copied: BTreeMap<usize, sys::CUevent>,
    /// What was queued up to the last prefetch.
    fence: Option<sys::CUevent>,
}

impl Default for Staged {
    fn default() -> Self {
        Staged { host: std::ptr::null_mut(), bytes: 0, copied: BTreeMap::new(), fence: None }
    }
}

/// A fixed sequence of ops: the first run is plain (libraries load what they need), the second is recorded, later ones are
/// replayed.
#[derive(Default)]
pub enum Recording {
    #[default]
    New,
    Warm,
    Recorded(Exec),
}

/// An instantiated CUDA graph.
pub struct Exec(sys::CUgraphExec);

impl Drop for Exec {
    fn drop(&mut self) {
        // SAFETY: instantiated once, destroyed once; the driver waits for a launch in flight.
        let _ = unsafe { result::graph::exec_destroy(self.0) };
    }
}

/// An event on the engine's stream.
pub struct Mark(sys::CUevent);

impl Drop for Mark {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}

impl<A: Activation> Cuda<A> {
    /// Returns what `reserve` took, after everything queued has run.
    pub(super) fn free_pools(&mut self) {
        let _ = self.synchronize("freeing memory");
        // SAFETY: each address came from the driver, is freed once, and nothing queued uses it any more.
        unsafe {
            for address in self.pools.iter_mut().filter(|address| **address != 0) {
                let _ = result::free_sync(std::mem::take(address));
            }
            if !self.staged.host.is_null() {
                let _ = result::free_host(self.staged.host.cast());
            }
            for &event in self.staged.copied.values().chain(&self.staged.fence) {
                let _ = result::event::destroy(event);
            }
        }
        self.staged = Staged::default();
        self.reserved = 0;
    }

    /// Fills a staging slot through its pinned mirror, on `stream`. Returns what is recorded behind the copy.
    fn stage<T: Element>(
        &mut self,
        dst: Slot<T>,
        stream: sys::CUstream,
        fill: impl FnOnce(&mut [T]) -> Result<()>,
    ) -> Result<sys::CUevent> {
        let e = |e| driver_error("write", e);
        assert!(dst.offset + dst.bytes() <= self.staged.bytes, "{dst:?} is not in the staging pool");
        let event = match self.staged.copied.get(&dst.offset) {
            Some(&event) => event,
            None => result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING).map_err(e)?,
        };
        // SAFETY: the range lies in the mirror (checked above), is aligned as slots are, and no other reference covers it; waiting
        // for the event makes sure that the last copy from this slot has been made. The device range is the slot's.
        unsafe {
            if self.staged.copied.insert(dst.offset, event).is_some() {
                result::event::synchronize(event).map_err(e)?;
            }
            let mirror = std::slice::from_raw_parts_mut(self.staged.host.add(dst.offset).cast::<T>(), dst.len);
            fill(mirror)?;
            result::memcpy_htod_async(self.address(dst), mirror, stream).map_err(e)?;
            result::event::record(event, stream).map_err(e)?;
        }
        Ok(event)
    }

    /// Fills a staging slot on a stream of its own: behind what was queued up to the call before, and before what is queued from
    /// now on.
    fn stage_aside<T: Element>(&mut self, dst: Slot<T>, fill: impl FnOnce(&mut [T]) -> Result<()>) -> Result<()> {
        let (e, wait) = (|e| driver_error("prefetch", e), sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT);
        let fence = match self.staged.fence {
            Some(fence) => fence,
            None => {
                // Nothing was marked yet: behind everything.
                let fence = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING).map_err(e)?;
                self.staged.fence = Some(fence);
                // SAFETY: the event was just created, the stream is the engine's.
                unsafe { result::event::record(fence, self.stream) }.map_err(e)?;
                fence
            }
        };
        // SAFETY: events and both streams live as long as the pools. A wait is for what was recorded when it is queued.
        unsafe {
            result::stream::wait_event(self.aside, fence, wait).map_err(e)?;
            result::event::record(fence, self.stream).map_err(e)?;
            let copied = self.stage(dst, self.aside, fill)?;
            result::stream::wait_event(self.stream, copied, wait).map_err(e)
        }
    }
}

impl<A: Activation> Memory for Cuda<A> {
    type Act = A;
    type Recording = Recording;
    type Mark = Mark;

    fn decide(&mut self) -> Result<()> {
        self.decide_convolutions()
    }

    fn scratch_bytes(&self) -> usize {
        self.scratch
    }

    /// With what `reserve` will return first: a second plan decides as the first did.
    fn free_bytes(&self) -> Option<usize> {
        result::mem_get_info().ok().map(|(free, _)| free + self.reserved)
    }

    fn describe(&self) -> serde_json::Value {
        serde_json::to_value(&self.sheet).expect("a sheet is plain data")
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
        let total: usize = sizes.iter().sum();
        let doing = "reserving memory";
        let (free, _) = result::mem_get_info().map_err(|e| driver_error(doing, e))?;
        if total > free {
            return Err(layout.too_large("GPU memory", total, free));
        }
        for (pool, &bytes) in POOLS.iter().zip(&sizes).filter(|(_, bytes)| **bytes > 0) {
            // SAFETY: the address is kept and freed once, by `free_pools`.
            let address = unsafe { result::malloc_sync(bytes) };
            self.pools[*pool as usize] = address.map_err(|e| driver_error(doing, e))?;
            self.reserved += bytes;
        }
        let bytes = layout.bytes(Pool::Staging);
        if bytes > 0 {
            // SAFETY: as above.
            let host = unsafe { result::malloc_host(bytes, 0) }.map_err(|e| driver_error(doing, e))?;
            self.staged = Staged { host: host.cast(), bytes, ..Staged::default() };
        }
        Ok(())
    }

    fn write<T: Element>(&mut self, dst: Slot<T>, src: &[T]) -> Result<()> {
        if src.len() > dst.len {
            return Err(Error::Shape { op: "write", what: "src", got: src.len(), want: dst.len });
        }
        if src.is_empty() {
            return Ok(());
        }
        if dst.pool == Pool::Staging {
            let copied = self.stage(dst.part(0, src.len()), self.stream, |mirror| {
                mirror.copy_from_slice(src);
                Ok(())
            });
            return copied.map(|_| ());
        }
        // NOTE: on the engine's stream. A synchronous copy from pageable memory returns before its last bytes have arrived, and
        // only the null stream would wait for them, which this one does not know.
        // SAFETY: the slot holds at least `src` (checked above), which lives until the copy has been waited for.
        unsafe { result::memcpy_htod_async(self.address(dst), src, self.stream) }
            .map_err(|e| driver_error("write", e))?;
        self.synchronize("write")
    }

    fn fill<T: Element>(&mut self, dst: Slot<T>, fill: impl FnOnce(&mut [T]) -> Result<()>) -> Result<()> {
        if dst.pool == Pool::Staging && dst.len > 0 {
            return self.stage(dst, self.stream, fill).map(|_| ());
        }
        let mut host = vec![T::zeroed(); dst.len];
        fill(&mut host)?;
        self.write(dst, &host)
    }

    fn prefetch<T: Element>(&mut self, dst: Slot<T>, fill: impl FnOnce(&mut [T]) -> Result<()>) -> Result<()> {
        self.stage_aside(dst, fill)
    }

    fn read<T: Element>(&mut self, src: Slot<T>) -> Result<Vec<T>> {
        let mut out = vec![T::zeroed(); src.len];
        if src.len > 0 {
            // SAFETY: `out` has the slot's length, and lives until the copy has been waited for.
            unsafe { result::memcpy_dtoh_async(&mut out, self.address(src), self.stream) }
                .map_err(|e| driver_error("read", e))?;
        }
        self.synchronize("read")?;
        Ok(out)
    }

    fn zero<T: Element>(&mut self, dst: Slot<T>) -> Result<()> {
        if dst.len == 0 {
            return Ok(());
        }
        // SAFETY: the range is the slot's.
        let queued = unsafe { result::memset_d8_async(self.address(dst), 0, dst.bytes(), self.stream) };
        queued.map_err(|e| driver_error("zero", e))
    }

    fn copy<T: Element>(&mut self, dst: Slot<T>, src: Slot<T>) -> Result<()> {
        if src.len != dst.len {
            return Err(Error::Shape { op: "copy", what: "src", got: src.len, want: dst.len });
        }
        if dst.len == 0 {
            return Ok(());
        }
        // SAFETY: both ranges are slots of the same length.
        let queued =
            unsafe { result::memcpy_dtod_async(self.address(dst), self.address(src), dst.bytes(), self.stream) };
        queued.map_err(|e| driver_error("copy", e))
    }

    fn replay(&mut self, recording: &mut Recording, ops: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let e = |e| driver_error("replaying a step", e);
        if self.options.no_graph {
            return ops(self);
        }
        match recording {
            Recording::New => {
                ops(self)?;
                *recording = Recording::Warm;
                return Ok(());
            }
            Recording::Warm => {
                // SAFETY: the stream is the engine's; what is captured is queued by this thread between begin and end.
                let graph = unsafe {
                    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
                    result::stream::begin_capture(self.stream, mode).map_err(e)?;
                    let queued = ops(self);
                    let graph = result::stream::end_capture(self.stream);
                    queued?;
                    graph.map_err(e)?
                };
                // SAFETY: the graph was captured above, is instantiated once, and destroyed here.
                let exec = unsafe {
                    let exec = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
                    let _ = result::graph::destroy(graph);
                    exec.map_err(e)?
                };
                *recording = Recording::Recorded(Exec(exec));
            }
            Recording::Recorded(_) => {}
        }
        let Recording::Recorded(exec) = recording else { unreachable!("recorded above") };
        // SAFETY: the graph only touches pools, which stay where they are until `reserve`.
        unsafe { result::graph::launch(exec.0, self.stream) }.map_err(e)
    }

    fn mark(&mut self) -> Result<Mark> {
        let e = |e| driver_error("mark", e);
        let mark = Mark(result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(e)?);
        // SAFETY: the event was just created, the stream is the engine's.
        unsafe { result::event::record(mark.0, self.stream) }.map_err(e)?;
        Ok(mark)
    }

    fn seconds(&mut self, start: Mark, end: Mark) -> Result<f64> {
        // SAFETY: both events were recorded on this stream.
        let ms = unsafe { result::event::synchronize(end.0).and_then(|()| result::event::elapsed(start.0, end.0)) };
        ms.map(|ms| f64::from(ms) / 1000.0).map_err(|e| driver_error("mark", e))
    }

    fn enter(&mut self, name: &str) {
        if let Some(nvtx) = self.nvtx {
            nvtx.push(name);
        }
    }

    fn leave(&mut self) {
        if let Some(nvtx) = self.nvtx {
            nvtx.pop();
        }
    }

    fn record(&mut self, on: bool) -> Result<()> {
        self.synchronize("profiler window")?;
        // SAFETY: takes nothing; without a profiler it does nothing.
        let set = unsafe { if on { sys::cuProfilerStart() } else { sys::cuProfilerStop() } };
        set.result().map_err(|e| driver_error("profiler window", e))
    }
}
