//! Which engine computes. The one place that knows which there are.

use std::cell::RefCell;

use crate::base::{Error, Result, stop, tell};
use crate::cli::args::{Device, EngineArgs, Precision};
use crate::cli::paths::cache;
use crate::device::cpu::Cpu;
use crate::device::cuda::{self, Autotune, Choosing, Cuda, Options, Watcher};
use crate::device::{Dtype, Engine};
use crate::report::{PhaseBar, Progress};

/// What computes: chosen before images are read, so that a machine that lacks it says so at once.
pub struct Chosen<'a> {
    args: &'a EngineArgs,
    autotune: Autotune,
    /// None: the CPU.
    gpu: Option<usize>,
}

impl<'a> Chosen<'a> {
    /// The engine that the flags mean, for a command that takes `autotune` where they say nothing
    /// of it. Errors: flags that contradict each other, no driver, no such GPU.
    pub fn new(args: &'a EngineArgs, autotune: Autotune) -> Result<Self> {
        let gpu = gpu(args)?;
        gpu.map_or(Ok(()), cuda::find)?;
        Ok(Chosen { args, autotune: args.autotune.unwrap_or(autotune), gpu })
    }

    pub fn is_gpu(&self) -> bool {
        self.gpu.is_some()
    }

    /// Opens it.
    pub fn open(&self) -> Result<Box<dyn Engine>> {
        let (args, Some(ordinal)) = (self.args, self.gpu) else { return Ok(Box::new(Cpu::new())) };
        let options = Options {
            ordinal,
            no_graph: args.no_graph,
            autotune: self.autotune,
            deterministic: args.deterministic,
            cache: Some(cache().join("cudnn-engines.json")),
            watch: watcher(),
        };
        let dtype = match args.precision.unwrap_or(Precision::Bf16) {
            Precision::Bf16 => Dtype::Bf16,
            Precision::F16 => Dtype::F16,
            Precision::F32 => Dtype::F32,
        };
        Ok(Box::new(Cuda::new(options, dtype)?))
    }
}

/// Shows how far the choice of cuDNN's engines is, where some are new and it takes a while.
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

/// The GPU to use, or none for the CPU.
fn gpu(args: &EngineArgs) -> Result<Option<usize>> {
    let ordinal = match args.device {
        Device::Cpu => None,
        Device::Cuda(ordinal) => Some(ordinal),
        Device::Auto => match cuda::ready() {
            Ok(()) => Some(0),
            Err(e) => {
                // A machine without a driver is nothing to talk about; a GPU that lies idle is.
                if cuda::has_driver() {
                    tell(format_args!("the GPU is not used: {e}"));
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
