//! `picie scenes` draws a small data set.

use std::path::Path;

use serde_json::json;

use crate::base::Result;
use crate::cli::args::ScenesArgs;
use crate::cli::bar::FileBar;
use crate::cli::paths::text;
use crate::cli::say;
use crate::data::scenes;

/// Runs the command: draws scenes into a new folder.
pub fn run(args: &ScenesArgs) -> Result<()> {
    draw_scenes(&args.dir, args.train, args.val, args.seed)?;
    let ScenesArgs { dir, train, val, .. } = args;
    say(if args.json {
        json!({ "dir": text(dir), "train": train, "val": val }).to_string()
    } else {
        format!("{}: {train} training and {val} validation images", dir.display())
    })
}

/// Draws scenes with a progress bar. A complete folder of scenes with the same parameters is left
/// as it is.
pub fn draw_scenes(dir: &Path, train: usize, val: usize, seed: u64) -> Result<()> {
    let bar = FileBar::new("scenes");
    scenes::write(dir, train, val, seed, &|done, total| bar.set(done, total))?;
    bar.finish();
    Ok(())
}
