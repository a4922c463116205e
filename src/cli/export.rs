//! The command `picie export`, which writes a trained network for other programs.

use std::path::PathBuf;

use serde_json::json;

use crate::base::fs::write_atomic;
use crate::base::{Error, Result};
use crate::cli::args::ExportArgs;
use crate::cli::outputs::{self, Output};
use crate::cli::paths::text;
use crate::cli::say;
use crate::export::{Exported, hub, onnx, torch};
use crate::train::Trained;

/// Runs the command. Nothing is written before the checkpoint was read.
pub fn run(args: &ExportArgs) -> Result<()> {
    if let Some(path) = &args.onnx {
        outputs::check_name(path, "--onnx", "an ONNX model", &["onnx"])?;
    }
    if let Some(path) = &args.torch {
        outputs::check_name(path, "--torch", "a Python script", &["py"])?;
    }
    let trained = Trained::read(&args.checkpoint)?;
    let is_ours = trained.weights.metadata.contains_key("picie");
    if let (Some(dir), false) = (&args.folder, is_ours) {
        let what = "picie.py reads checkpoints of picie, and this is one of the released code";
        return Err(Error::file(dir, what, "use --onnx for it"));
    }
    let mut written: Vec<PathBuf> =
        [&args.onnx, &args.torch].into_iter().flatten().cloned().collect();
    if let Some(dir) = &args.folder {
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        written.extend(hub::FILES.map(|name| dir.join(name)));
    }
    let outputs: Vec<Output> =
        written.iter().map(|path| Output::new(path, path.display())).collect();
    outputs::check(&outputs, [&*args.checkpoint], "give other names")?;
    if args.folder.is_some() {
        let files = &written[written.len() - hub::FILES.len()..];
        outputs::check_own(files, &files[0], &["picie_version"])?;
    }

    let exported = Exported::new(trained)?;
    if let Some(path) = &args.onnx {
        let model = onnx::model(&exported)?;
        write_atomic(path, |out| out.write_all(&model))?;
    }
    if let Some(path) = &args.torch {
        torch(path)?;
    }
    if let Some(dir) = &args.folder {
        hub::write_folder(dir, &exported)?;
    }
    if args.json {
        return say(
            json!({ "written": written.iter().map(|path| text(path)).collect::<Vec<_>>() }),
        );
    }
    written.iter().try_for_each(|path| say(path.display()))
}
