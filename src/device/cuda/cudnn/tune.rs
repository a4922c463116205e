//! Which engine runs a problem: the heuristics' word, what was measured before, or a measurement here and now.

use std::rc::Rc;
use std::time::{Duration, Instant};

use cudarc::driver::result::{self, DriverError, event};
use cudarc::driver::sys::{CUdeviceptr, CUevent, CUevent_flags, CUstream};

use super::Handle;
use super::api::{Answer, Refusal};
use super::cache::Entry;
use super::descriptor::Descriptor;
use super::engine::{Config, MODES, Plan, configs};
use super::graph::{Operand, Problem, graph};
use crate::base::rng::{Rng, Stream};
use crate::device::cuda::context::Autotune;

/// Engines that want more workspace than this are passed over.
const WORKSPACE: usize = 1 << 30;
/// How many engines are measured without `Autotune::Exhaustive`: the heuristics are seldom so wrong.
const SHORTLIST: usize = 8;
/// An engine is measured this often after a warm-up, unless that takes longer than [`PATIENCE`].
const RUNS: usize = 5;
/// Calls of one measurement: the host prepares the next while the GPU runs, as it must not count beside recorded steps.
const CALLS: usize = 8;
const PATIENCE: Duration = Duration::from_millis(50);

/// The plan for `problem`, with the microseconds it took where it was measured.
pub fn choose(handle: &mut Handle, problem: &Problem) -> Answer<(Plan, Option<f32>)> {
    let graph = graph(handle, problem)?;
    let key = handle.key(problem);
    // NOTE: only the remembered engine is built: for those of fused graphs that compiles a kernel, half a second each.
    if handle.autotune == Autotune::Load
        && let Some(entry) = handle.cache.get(&key).cloned()
        && let Some(plan) = plans(handle, &graph, problem, |tag| tag == entry.tag).next()
    {
        return Ok((plan, Some(entry.microseconds)));
    }
    let most = match handle.autotune {
        Autotune::Off => 1,
        Autotune::Load => SHORTLIST,
        Autotune::Exhaustive => usize::MAX,
    };
    let mut candidates: Vec<Plan> = plans(handle, &graph, problem, |_| true).take(most).collect();
    if candidates.is_empty() {
        return Err(Refusal("none of its engines takes this shape, type and epilogue".into()));
    }
    if handle.autotune == Autotune::Off {
        return Ok((candidates.swap_remove(0), None));
    }
    // Where nothing can be measured the first is as good as any.
    let times = measure(handle, &candidates, problem).unwrap_or_default();
    let best = times.iter().enumerate().filter_map(|(i, t)| Some((i, (*t)?))).min_by(|a, b| a.1.total_cmp(&b.1));
    let Some((i, microseconds)) = best else { return Ok((candidates.swap_remove(0), None)) };
    let plan = candidates.swap_remove(i);
    handle.cache.put(key, Entry { tag: plan.tag.clone(), microseconds, workspace: plan.workspace });
    Ok((plan, Some(microseconds)))
}

/// All with a `wanted` tag that can run, best first, as the heuristics see it. Each is built when it is asked for: that may compile
/// a kernel.
fn plans<'a>(
    handle: &'a Handle,
    graph: &'a Rc<Descriptor>,
    problem: &'a Problem,
    wanted: impl Fn(&str) -> bool + 'a,
) -> impl Iterator<Item = Plan> + 'a {
    let mut seen = Vec::new();
    let all = MODES.into_iter().flat_map(move |mode| configs(handle, graph, mode, problem.data, handle.deterministic));
    let fresh = all.filter(move |config: &Config| {
        let is_fresh = wanted(&config.tag) && !seen.contains(&config.tag);
        seen.push(config.tag.clone());
        is_fresh
    });
    fresh.filter_map(move |config| {
        Plan::build(handle, graph, &config, problem).ok().filter(|p| p.workspace <= WORKSPACE)
    })
}

/// Device memory that is freed with it.
struct Buffer(CUdeviceptr);

impl Buffer {
    fn new(bytes: usize) -> Result<Self, DriverError> {
        // SAFETY: freed once, by `drop`.
        unsafe { result::malloc_sync(bytes.max(1)) }.map(Buffer)
    }

    /// `bytes` of bf16, f16 and f32 numbers alike: normal ones of either sign. Constants would cost a GPU less power, and so time.
    fn noise(bytes: usize) -> Result<Self, DriverError> {
        let buffer = Buffer::new(bytes)?;
        let mut rng = Rng::new(0, Stream::Other, 0, 0);
        let block: Vec<u16> =
            (0..bytes.min(1 << 20).div_ceil(2)).map(|_| half::bf16::from_f32(rng.normal()).to_bits()).collect();
        let (block, mut filled) = (&block, 0);
        while filled < bytes {
            let part = &bytemuck::cast_slice::<u16, u8>(block)[..(bytes - filled).min(2 * block.len())];
            // SAFETY: the buffer has `bytes`, and `part` ends at them at the latest.
            unsafe { result::memcpy_htod_sync(buffer.0 + filled as u64, part) }?;
            filled += part.len();
        }
        Ok(buffer)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`; `measure` waits for what uses it.
        let _ = unsafe { result::free_sync(self.0) };
    }
}

struct Timer {
    start: CUevent,
    end: CUevent,
    stream: CUstream,
}

impl Timer {
    fn new(stream: CUstream) -> Result<Self, DriverError> {
        let event = || event::create(CUevent_flags::CU_EVENT_DEFAULT);
        Ok(Timer { start: event()?, end: event()?, stream })
    }

    /// Microseconds on the stream of one of `calls` of `work`. None where it fails.
    fn time(&self, calls: usize, work: impl Fn() -> Answer) -> Option<f32> {
        // SAFETY: events and stream are alive; both events are recorded before their difference is asked for.
        unsafe {
            event::record(self.start, self.stream).ok()?;
            (0..calls).try_for_each(|_| work()).ok()?;
            event::record(self.end, self.stream).ok()?;
            event::synchronize(self.end).ok()?;
            event::elapsed(self.start, self.end).ok().map(|ms| 1000.0 * ms / calls as f32)
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: created by `new`, destroyed once; nothing queued waits for them (`time` does).
        unsafe {
            let _ = event::destroy(self.start);
            let _ = event::destroy(self.end);
        }
    }
}

/// The median of a few runs of each plan on memory of its own. None for a plan that fails.
fn measure(handle: &Handle, plans: &[Plan], problem: &Problem) -> Result<Vec<Option<f32>>, DriverError> {
    let operands = problem.operands();
    let buffers = operands.iter().map(|&(_, bytes)| Buffer::noise(bytes)).collect::<Result<Vec<_>, _>>()?;
    let workspace = Buffer::new(plans.iter().map(|p| p.workspace).max().unwrap_or(0))?;
    let addresses: Vec<(Operand, u64)> = operands.iter().zip(&buffers).map(|(&(o, _), b)| (o, b.0)).collect();
    let timer = Timer::new(handle.stream)?;
    let time = |plan: &Plan| {
        // SAFETY: every buffer has its operand's size, the workspace the largest that is wanted.
        let run = |calls| timer.time(calls, || unsafe { plan.execute(handle, &addresses, workspace.0) });
        let started = Instant::now();
        run(1)?;
        let mut times = vec![run(CALLS)?];
        while times.len() < RUNS && started.elapsed() < PATIENCE {
            times.push(run(CALLS)?);
        }
        times.sort_by(f32::total_cmp);
        Some(times[times.len() / 2])
    };
    let times = plans.iter().map(time).collect();
    // SAFETY: the stream lives as long as the engine. What a failed plan left queued must not outlive the buffers.
    unsafe { result::stream::synchronize(handle.stream) }?;
    Ok(times)
}
