//! From the host to the device: the mirror of the staging pool, buffers of images that come ahead,
//! and whole data sets.
//!
//! Copies leave from pinned memory, so that they are asynchronous. Small writes are gathered: one
//! copy brings all that was written since the last one, before the next thing is queued.

use std::collections::BTreeMap;
use std::ops::Range;

use cudarc::driver::{result, sys};

use crate::base::{Error, Result};
use crate::device::cuda::Cuda;
use crate::device::cuda::error::driver_error;
use crate::device::cuda::event::Event;
use crate::device::engine::Fill;
use crate::device::{Layout, Pool, Slot};

/// Pinned host memory, freed with it: after the copies that leave from it.
pub(super) struct Pinned {
    host: *mut u8,
    bytes: usize,
}

impl Pinned {
    /// No memory where `bytes` is 0.
    pub fn new(bytes: usize) -> Result<Self> {
        if bytes == 0 {
            return Ok(Pinned { host: std::ptr::NonNull::dangling().as_ptr(), bytes });
        }
        // SAFETY: freed once, by `drop`.
        let host = unsafe { result::malloc_host(bytes, 0) }.map_err(|e| Error::Device {
            op: "reserving memory".into(),
            what: format!("{} MiB of pinned host memory could not be had ({:?})", bytes.div_ceil(1 << 20), e.0),
            remedy: "free memory of the host, raise the limit of locked memory (ulimit -l), or lower --batch".into(),
        })?;
        Ok(Pinned { host: host.cast(), bytes })
    }

    /// A part of it.
    pub fn part(&mut self, bytes: Range<usize>) -> &mut [u8] {
        assert!(bytes.end <= self.bytes, "{bytes:?} is outside of {} bytes", self.bytes);
        // SAFETY: the range lies in the allocation (checked above), and `self` is borrowed with it.
        // Callers have waited for the copies that left from there.
        unsafe { std::slice::from_raw_parts_mut(self.host.add(bytes.start), bytes.len()) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: allocated by `new`; owners have waited for what was queued.
            let _ = unsafe { result::free_host(self.host.cast()) };
        }
    }
}

/// What the host writes before a step, in pinned memory.
#[derive(Default)]
pub(super) struct Staged {
    block: Option<Block>,
    images: Option<Images>,
}

/// The mirror of the staging pool.
struct Block {
    mirror: Pinned,
    /// Written since the last copy.
    written: Option<Range<usize>>,
    /// Behind the last copy, if it may still be on its way.
    copied: Event,
    on_its_way: bool,
}

/// The mirror of the images' pool.
struct Images {
    mirror: Pinned,
    /// Behind the last copy from each slot, by its offset.
    copied: BTreeMap<usize, Event>,
    /// Behind what was queued up to the last prefetch.
    fence: Event,
}

impl Staged {
    /// `fence` marks nothing yet: nothing is queued.
    pub fn new(layout: &Layout) -> Result<Self> {
        let event = || Event::new(false).map_err(|e| driver_error("reserving memory", e));
        let mirror = |pool| match layout.bytes(pool) {
            0 => Ok(None),
            bytes => Pinned::new(bytes).map(Some),
        };
        let block = match mirror(Pool::Staging)? {
            Some(mirror) => {
                Some(Block { mirror, written: None, copied: event()?, on_its_way: false })
            }
            None => None,
        };
        let images = match mirror(Pool::Images)? {
            Some(mirror) => Some(Images { mirror, copied: BTreeMap::new(), fence: event()? }),
            None => None,
        };
        Ok(Staged { block, images })
    }
}

impl Cuda {
    /// Fills a slot of the staging pool. What is queued next finds it there.
    pub(super) fn put(&mut self, dst: Slot<u8>, fill: Fill) -> Result<()> {
        let block = self.staged.block.as_mut().expect("the layout has this slot");
        if std::mem::take(&mut block.on_its_way) {
            block.copied.wait().map_err(|e| driver_error("write", e))?;
        }
        let bytes = dst.offset..dst.offset + dst.len;
        fill(block.mirror.part(bytes.clone()))?;
        block.written = Some(match block.written.take() {
            Some(before) => before.start.min(bytes.start)..before.end.max(bytes.end),
            None => bytes,
        });
        Ok(())
    }

    /// Queues the copy of what was written to the staging pool since the last one: before anything
    /// else is queued.
    pub(super) fn flush(&mut self) -> Result<()> {
        let Some(block) = &mut self.staged.block else { return Ok(()) };
        let Some(bytes) = block.written.take() else { return Ok(()) };
        let to = self.pools[Pool::Staging as usize] + bytes.start as u64;
        // SAFETY: the range lies in the pool as in its mirror, which stays as it is until `copied`
        // has been waited for.
        unsafe { result::memcpy_htod_async(to, block.mirror.part(bytes), self.stream) }
            .and_then(|()| block.copied.record(self.stream))
            .map_err(|e| driver_error("write", e))?;
        block.on_its_way = true;
        Ok(())
    }

    /// Fills a slot of images through its mirror, on `stream`.
    pub(super) fn put_images(
        &mut self,
        dst: Slot<u8>,
        stream: sys::CUstream,
        fill: Fill,
    ) -> Result<()> {
        let to = self.address(dst);
        let images = self.staged.images.as_mut().expect("the layout has this slot");
        let e = |e| driver_error("write", e);
        match images.copied.get(&dst.offset) {
            Some(copied) => copied.wait().map_err(e)?,
            None => {
                images.copied.insert(dst.offset, Event::new(false).map_err(e)?);
            }
        }
        let mirror = images.mirror.part(dst.offset..dst.offset + dst.len);
        fill(mirror)?;
        // SAFETY: the range is the slot's; the mirror stays as it is until the event has been
        // waited for.
        unsafe { result::memcpy_htod_async(to, mirror, stream) }
            .and_then(|()| images.copied[&dst.offset].record(stream))
            .map_err(e)
    }

    /// Fills a slot of images on a stream of its own, behind what was queued up to the call before.
    /// [`Cuda::gate_on`] waits for it.
    pub(super) fn put_aside(&mut self, dst: Slot<u8>, fill: Fill) -> Result<()> {
        let images = self.staged.images.as_ref().expect("the layout has this slot");
        let fenced = images.fence.gate(self.aside).and_then(|()| images.fence.record(self.stream));
        fenced.map_err(|e| driver_error("prefetch", e))?;
        self.put_images(dst, self.aside, fill)
    }

    /// What is queued from now on finds in `slot` what was prefetched.
    pub(super) fn gate_on(&mut self, slot: Slot<u8>) -> Result<()> {
        let copied = self.staged.images.as_ref().and_then(|images| images.copied.get(&slot.offset));
        copied
            .map_or(Ok(()), |copied| copied.gate(self.stream))
            .map_err(|e| driver_error("prefetch", e))
    }

    /// Fills a slot piece by piece, from two buffers in turn: one is filled while the other is
    /// copied.
    pub(super) fn put_pieces(
        &mut self,
        dst: Slot<u8>,
        piece: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let e = |e| driver_error("loading images", e);
        let bytes = piece.min(dst.len);
        let mut buffers = [Pinned::new(bytes)?, Pinned::new(bytes)?];
        let copied = [Event::new(false).map_err(e)?, Event::new(false).map_err(e)?];
        let mut load = || -> Result<()> {
            for (i, start) in (0..dst.len).step_by(piece).enumerate() {
                let to = dst.part(start, piece.min(dst.len - start));
                copied[i % 2].wait().map_err(e)?;
                let buffer = buffers[i % 2].part(0..to.len);
                fill(start, buffer)?;
                // SAFETY: the range is the slot's part; the buffer stays as it is until its event
                // has been waited for.
                unsafe { result::memcpy_htod_async(self.address(to), buffer, self.stream) }
                    .and_then(|()| copied[i % 2].record(self.stream))
                    .map_err(e)?;
            }
            Ok(())
        };
        let loaded = load();
        // Also after an error: the buffers go.
        self.synchronize("loading images").and(loaded)
    }
}
