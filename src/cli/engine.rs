//! The choice of the engine that computes. Only this file knows which engines compute.

use std::cell::RefCell;

use crate::base::say::{detail, warn};
use crate::base::{Error, Result, memory, stop};
use crate::cli::args::{Device, EngineArgs, Precision};
use crate::cli::paths::cudnn_engines;
use crate::device::cpu::Cpu;
use crate::device::cuda::{self, Autotune, Choosing, Cuda, Options, Watcher};
use crate::device::{Dtype, Engine};
use crate::report::{PhaseBar, Progress};

/// Bytes of memory below which nothing that computes is begun: those of the threads, and of the
/// weights of a network.
const LEAST: u64 = 256 << 20;

/// The engine that was chosen. This happens before images are read, so that a machine without it
/// says so at once.
pub struct Chosen<'a> {
    args: &'a EngineArgs,
    /// The way in which cuDNN's engines are chosen.
    autotune: Autotune,
    /// The number of the GPU. `None`: the CPU.
    gpu: Option<usize>,
}

impl<'a> Chosen<'a> {
    /// Chooses the engine that the flags name. `autotune` is the command's default. Fails on flags
    /// that contradict each other, and if there is no driver or no such GPU.
    pub fn new(args: &'a EngineArgs, autotune: Autotune) -> Result<Self> {
        if let Some(free) = memory::available().filter(|&free| free < LEAST) {
            let [free, least] = [free, LEAST].map(|bytes| bytes >> 20);
            let what =
                format!("{free} MiB of memory are free, and picie begins with {least} or more");
            return Err(Error::input(what, "free some memory, or raise its limit (ulimit -v)"));
        }
        let gpu = gpu(args)?;
        gpu.map_or(Ok(()), cuda::find)?;
        Ok(Chosen { args, autotune: args.autotune.unwrap_or(autotune), gpu })
    }

    /// Whether the engine is a GPU.
    pub fn is_gpu(&self) -> bool {
        self.gpu.is_some()
    }

    /// Opens the engine.
    pub fn open(&self) -> Result<Box<dyn Engine>> {
        let engine = self.make()?;
        detail(format_args!("engine: {}", engine.describe()));
        Ok(engine)
    }

    fn make(&self) -> Result<Box<dyn Engine>> {
        let (args, Some(ordinal)) = (self.args, self.gpu) else { return Ok(Box::new(Cpu::new())) };
        let options = Options {
            ordinal,
            no_graph: args.no_graph,
            autotune: self.autotune,
            deterministic: args.deterministic,
            cache: Some(cudnn_engines()),
            watch: watcher(),
        };
        Ok(Box::new(Cuda::new(options, gpu_dtype(args))?))
    }
}

/// The type of activations on a GPU.
pub fn gpu_dtype(args: &EngineArgs) -> Dtype {
    match args.precision.unwrap_or(Precision::Bf16) {
        Precision::Bf16 => Dtype::Bf16,
        Precision::F16 => Dtype::F16,
        Precision::F32 => Dtype::F32,
    }
}

/// Shows the progress of measuring cuDNN's engines, if some have to be built, which takes a while.
fn watcher() -> Watcher {
    let shown = RefCell::new(None::<PhaseBar>);
    Watcher::new(move |Choosing { done, total, new }| {
        stop::check()?;
        if new == 0 {
            return Ok(());
        }
        let mut shown = shown.borrow_mut();
        let phase = shown.get_or_insert_with(|| {
            let phase = Progress::count("choose engines", total as u64, "engines");
            phase.announce(&format!("{new} of {total} have to be built"));
            phase
        });
        phase.reach(done as u64);
        if done == total
            && let Some(phase) = shown.take()
        {
            phase.finish();
        }
        Ok(())
    })
}

/// The number of the GPU to use. `None` for the CPU.
fn gpu(args: &EngineArgs) -> Result<Option<usize>> {
    let ordinal = match args.device {
        Device::Cpu => None,
        Device::Cuda(ordinal) => Some(ordinal),
        Device::Auto => match cuda::ready() {
            Ok(()) => Some(0),
            Err(e) => {
                // A machine without a driver needs no message, but one whose GPU is not used does.
                if cuda::has_driver() {
                    warn(format_args!("the GPU is not used: {e}"));
                }
                None
            }
        },
    };
    if ordinal.is_none() {
        let asked = [
            ("--precision", args.precision.is_some_and(|p| p != Precision::F32)),
            ("--no-graph", args.no_graph),
        ];
        if let Some((flag, _)) = asked.into_iter().find(|(_, asked)| *asked) {
            let remedy = "leave it out, or choose --device cuda";
            return Err(Error::input(
                format!("{flag} is for GPUs, and the CPU engine computes here"),
                remedy,
            ));
        }
    }
    Ok(ordinal)
}
