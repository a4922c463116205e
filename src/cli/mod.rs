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
mod export;
mod info;
mod limits;
mod name;
mod neighbors;
mod outputs;
mod pages;
mod paths;
mod pictures;
mod read;
mod recipe_file;
mod recipes;
mod recluster;
mod scenes;
mod segment;
mod set;
mod settings;
mod sweep;
mod threads;
mod train;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::base::say::{self as speech, Volume, say};
use crate::base::{Error, Result};
use args::{Args, Command, TalkArgs};

/// Runs the command that the process was started with. The exit status is 0 if all went well, 1
/// after an error, 2 if the command line was not understood, and 130 if the user stopped it, as
/// shells report of a process that was ended by Ctrl-C.
pub fn main() -> ExitCode {
    let done = match Args::try_parse() {
        Ok(args) => run(args),
        Err(e) => {
            let shown = e.render();
            let out = !e.use_stderr();
            let text =
                if speech::colours(out) { shown.ansi().to_string() } else { shown.to_string() };
            if !out {
                speech::warn(text.trim_end());
                return ExitCode::from(2);
            }
            say(text.trim_end())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            speech::warn(format_args!("picie: {e}"));
            match e {
                Error::Interrupted { .. } => ExitCode::from(130),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(args: Args) -> Result<()> {
    speech::set_volume(match args.talk {
        TalkArgs { quiet: true, .. } => Volume::Quiet,
        TalkArgs { verbose: true, .. } => Volume::Verbose,
        _ => Volume::Usual,
    });
    watch::heed_signals();
    threads::on_all(|| command(args.command))
}

fn command(command: Command) -> Result<()> {
    match command {
        Command::Train(args) => train::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Baselines(args) => baselines::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Segment(args) => segment::run(&args),
        Command::Name(args) => name::run(&args),
        Command::Recluster(args) => recluster::run(&args),
        Command::Neighbors(args) => neighbors::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Scenes(args) => scenes::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Recipes(args) => recipes::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Cache(args) => cache::run(&args),
        Command::Completions(args) => pages::completions(&args),
        Command::Man(args) => pages::man(&args),
    }
}
