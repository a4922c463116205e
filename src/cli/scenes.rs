//! `picie scenes`.

use crate::base::Result;
use crate::cli::args::ScenesArgs;
use crate::cli::plan::draw_scenes;

pub fn run(args: &ScenesArgs) -> Result<()> {
    draw_scenes(&args.dir, args.train, args.val, args.seed)?;
    println!("{}: {} training and {} validation images", args.dir.display(), args.train, args.val);
    Ok(())
}
