//! How long plans take: the stopwatch, and the memory that they run on meanwhile.

use std::time::{Duration, Instant};

use cudarc::driver::result::{self, stream};
use cudarc::driver::sys::{CUdeviceptr, CUstream};

use super::api::{Answer, Class, Refusal};
use super::engine::Plan;
use super::graph::{Operand, Problem};
use crate::base::rng::{Rng, Stream};
use crate::device::cuda::event::Event;
use crate::device::cuda::recording::Exec;

/// An engine is measured this often after a warm-up, unless that takes longer than [`PATIENCE`].
const RUNS: usize = 5;
/// Calls of one measurement, recorded in one graph, as they are in a step: the host has no part in
/// it.
const CALLS: usize = 8;
const PATIENCE: Duration = Duration::from_millis(50);
/// Before the first measurement: an idle GPU takes a while to reach its clocks.
const BURN_IN: Duration = Duration::from_millis(150);
/// Where operands begin: as slots do, and more.
const ALIGN: usize = 256;
/// Numbers that the host draws; the rest of the noise are copies of them.
const DRAWN: usize = 1 << 16;

/// Device memory that is freed with it.
struct Buffer {
    at: CUdeviceptr,
    bytes: usize,
}

impl Buffer {
    fn new(bytes: usize) -> Answer<Self> {
        // SAFETY: freed once, by `drop`.
        Ok(Buffer { at: unsafe { result::malloc_sync(bytes) }?, bytes })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`; `Gauge` waits for what uses it.
        let _ = unsafe { result::free_sync(self.at) };
    }
}

/// Measures plans on one stream.
pub struct Gauge {
    stream: CUstream,
    start: Event,
    end: Event,
    /// What plans read: noise, which no plan changes. Constants would cost a GPU less power, and so
    /// time.
    noise: Option<Buffer>,
    /// What they write, and their workspace.
    output: Option<Buffer>,
    warm: bool,
}

impl Gauge {
    pub fn new(stream: CUstream) -> Answer<Self> {
        Ok(Gauge {
            stream,
            start: Event::new(true)?,
            end: Event::new(true)?,
            noise: None,
            output: None,
            warm: false,
        })
    }

    /// Microseconds of `plan`, the median of a few runs. Refused as not supported where it cannot
    /// be recorded.
    pub fn time(&mut self, plan: &Plan, problem: &Problem) -> Answer<f32> {
        let (addresses, workspace) = self.place(plan, problem)?;
        // SAFETY: every operand and the workspace have their room, see `place`.
        let run = || unsafe { plan.execute(&addresses, workspace) };
        // The first loads kernels, which cannot be recorded.
        run()?;
        self.wait()?;
        let calls = self.record(|| (0..CALLS).try_for_each(|_| run()))?;
        self.launch(&calls)?;
        let began = Instant::now();
        while !self.warm && began.elapsed() < BURN_IN {
            self.launch(&calls)?;
        }
        self.warm = true;
        let (began, mut times) = (Instant::now(), Vec::new());
        while times.is_empty() || (times.len() < RUNS && began.elapsed() < PATIENCE) {
            times.push(self.launch(&calls)?);
        }
        times.sort_by(f32::total_cmp);
        Ok(times[times.len() / 2] / CALLS as f32)
    }

    /// Gives each operand, and the workspace, room of its own.
    fn place(&mut self, plan: &Plan, problem: &Problem) -> Answer<(Vec<(Operand, u64)>, u64)> {
        let (mut places, mut inputs, mut workspace) = (Vec::new(), 0, 0);
        for (operand, bytes) in problem.operands() {
            let bytes = bytes.next_multiple_of(ALIGN);
            if operand == problem.output() {
                workspace = bytes;
            } else {
                places.push((operand, inputs));
                inputs += bytes;
            }
        }
        let noise = self.noise(inputs)?;
        let output = self.output(workspace + plan.workspace)?;
        let mut addresses: Vec<(Operand, u64)> =
            places.iter().map(|&(o, at)| (o, noise + at as u64)).collect();
        addresses.push((problem.output(), output));
        Ok((addresses, output + workspace as u64))
    }

    /// At least `bytes` of bf16, f16 and f32 numbers alike: normal ones of either sign.
    fn noise(&mut self, bytes: usize) -> Answer<CUdeviceptr> {
        if let Some(noise) = self.noise.as_ref().filter(|noise| noise.bytes >= bytes) {
            return Ok(noise.at);
        }
        self.noise = None;
        let bytes = bytes.max(2 * DRAWN);
        let noise = Buffer::new(bytes)?;
        let mut rng = Rng::new(0, Stream::Other, 0, 0);
        let drawn: Vec<u16> =
            (0..DRAWN).map(|_| half::bf16::from_f32(rng.normal()).to_bits()).collect();
        // SAFETY: the buffer has more bytes; `drawn` lives until the copy has been waited for.
        unsafe { result::memcpy_htod_async(noise.at, &drawn, self.stream) }?;
        self.wait()?;
        let mut filled = 2 * DRAWN;
        while filled < bytes {
            let part = filled.min(bytes - filled);
            // SAFETY: both ranges lie in the buffer, and the first has been filled by what was
            // queued before.
            unsafe {
                result::memcpy_dtod_async(noise.at + filled as u64, noise.at, part, self.stream)
            }?;
            filled += part;
        }
        Ok(self.noise.insert(noise).at)
    }

    fn output(&mut self, bytes: usize) -> Answer<CUdeviceptr> {
        if let Some(output) = self.output.as_ref().filter(|output| output.bytes >= bytes) {
            return Ok(output.at);
        }
        self.output = None;
        let output = Buffer::new(bytes)?;
        // SAFETY: the range is the buffer's.
        unsafe { result::memset_d8_async(output.at, 0, bytes, self.stream) }?;
        Ok(self.output.insert(output).at)
    }

    fn wait(&self) -> Answer {
        // SAFETY: the stream lives as long as the engine.
        Ok(unsafe { stream::synchronize(self.stream) }?)
    }

    fn record(&self, queue: impl FnOnce() -> Answer) -> Answer<Exec> {
        let cannot = |refusal: Refusal| match refusal.class {
            Class::Memory => refusal,
            _ => Refusal::unsupported(format!("it cannot be recorded: {}", refusal.text)),
        };
        Exec::record(self.stream, || queue().map_err(cannot), |e| cannot(e.into()))
    }

    /// Microseconds of all calls.
    fn launch(&self, calls: &Exec) -> Answer<f32> {
        self.start.record(self.stream)?;
        // SAFETY: the calls' memory is the gauge's, which outlives them.
        unsafe { calls.launch(self.stream) }?;
        self.end.record(self.stream)?;
        self.end.wait()?;
        Ok(1000.0 * self.end.since(&self.start)?)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        // What a failed plan left queued must not outlive the buffers.
        let _ = self.wait();
    }
}
