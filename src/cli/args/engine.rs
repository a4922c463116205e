//! The flags that say what computes.

use std::str::FromStr;

use clap::ValueEnum;

use crate::device::cuda::Autotune;

/// The engine that a flag names: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda(0)),
            _ => match text.strip_prefix("cuda:").map(str::parse) {
                Some(Ok(ordinal)) => Ok(Device::Cuda(ordinal)),
                _ => Err("use auto, cpu, cuda or cuda:N".into()),
            },
        }
    }
}

/// The element type of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    Bf16,
    F16,
    F32,
}

/// The engine that computes, and its options.
#[derive(Clone, Debug, clap::Args)]
pub struct EngineArgs {
    /// Where to compute: auto (the first GPU, else the CPU), cpu, cuda (the first GPU), or cuda:N
    #[arg(help_heading = "Engine", long, default_value = "auto", env = "PICIE_DEVICE")]
    pub device: Device,
    /// Element type of activations; sums, statistics and the weights that are trained are always
    /// f32 [default: bf16 on a GPU, f32 on the CPU]
    #[arg(help_heading = "Engine", long, value_enum, env = "PICIE_PRECISION")]
    pub precision: Option<Precision>,
    /// How cuDNN's convolution engines are chosen on a GPU: off takes the first one offered, cached
    /// those measured in earlier runs (else the first), load the same but measures what is missing,
    /// exhaustive measures all again [default: load for train, sweep and bench, else cached]
    #[arg(help_heading = "Engine", long, value_enum)]
    pub autotune: Option<Autotune>,
    /// Use only engines that give the same bits every time
    #[arg(help_heading = "Engine", long)]
    pub deterministic: bool,
    /// Launch ops one by one on a GPU and replay no recorded steps, so that profilers see names
    #[arg(help_heading = "Engine", long)]
    pub no_graph: bool,
}
