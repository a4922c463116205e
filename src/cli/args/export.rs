//! The flags of `picie export`.

use std::path::PathBuf;

/// At least one of `onnx`, `torch` and `folder` is there.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct ExportArgs {
    /// A checkpoint of picie, or of the released PiCIE code
    #[arg(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    /// ONNX model to write (opset 17), from a photo's bytes to labels and scores
    #[arg(help_heading = "Output", long, value_name = "FILE", group = "what")]
    pub onnx: Option<PathBuf>,
    /// PyTorch script to write, which reads checkpoints of picie
    #[arg(help_heading = "Output", long, value_name = "FILE", group = "what")]
    pub torch: Option<PathBuf>,
    /// Folder to write config.json, model.safetensors, README.md and picie.py into
    #[arg(help_heading = "Output", long, value_name = "DIR", group = "what")]
    pub folder: Option<PathBuf>,
    /// Print one line of JSON
    #[arg(help_heading = "Output", long)]
    pub json: bool,
}
