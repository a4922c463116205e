//! The command line. [`args`] is what was typed, [`settings`] what it means; each subcommand has a
//! file that runs it.

pub mod args;
mod bar;
mod baselines;
mod bench;
mod cache;
mod choose;
mod compare;
mod devices;
mod engine;
mod eval;
mod limits;
mod neighbors;
mod paths;
mod pictures;
mod read;
mod scenes;
mod segment;
mod set;
mod settings;
mod sweep;
mod train;
mod watch;

use std::io::Write;

use clap::Parser;

use crate::base::{Error, Result};
use args::{Args, Command};

/// Writes lines to standard output. A full disk is an error; a reader that has closed the pipe is
/// not.
fn say(text: impl std::fmt::Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("standard output", e))
        }
        _ => Ok(()),
    }
}

/// Runs the command that the process was started with.
pub fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    watch::heed_signals();
    match args.command {
        Command::Train(args) => train::run(&args)?,
        Command::Eval(args) => eval::run(&args)?,
        Command::Baselines(args) => baselines::run(&args)?,
        Command::Sweep(args) => sweep::run(&args)?,
        Command::Segment(args) => segment::run(&args)?,
        Command::Neighbors(args) => neighbors::run(&args)?,
        Command::Compare(args) => compare::run(&args)?,
        Command::Scenes(args) => scenes::run(&args)?,
        Command::Bench(args) => bench::run(&args)?,
        Command::Devices => devices::run()?,
        Command::Cache(args) => cache::run(&args)?,
    }
    Ok(())
}
