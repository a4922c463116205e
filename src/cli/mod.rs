//! The command line: [`args`] is what was typed, [`plan`] what it means, one file a subcommand does it.

pub mod args;
mod devices;
mod eval;
mod plan;
mod scenes;
mod segment;
mod train;
mod watch;

use clap::Parser;

use args::{Args, Command};

/// Runs the command that the process was started with.
pub fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Train(args) => train::run(&args)?,
        Command::Eval(args) => eval::run(&args)?,
        Command::Segment(args) => segment::run(&args)?,
        Command::Scenes(args) => scenes::run(&args)?,
        Command::Devices => devices::run(),
    }
    Ok(())
}
