//! `picie scenes` draws a small data set.

use crate::base::Result;
use crate::cli::args::ScenesArgs;
use crate::cli::plan::draw_scenes;
use crate::cli::say;

pub fn run(args: &ScenesArgs) -> Result<()> {
    draw_scenes(&args.dir, args.train, args.val, args.seed)?;
    say(format_args!(
        "{}: {} training and {} validation images",
        args.dir.display(),
        args.train,
        args.val
    ))
}
