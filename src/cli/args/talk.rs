//! The flags of what is said, and of the commands that only say something.

use std::path::PathBuf;

/// How much is said on standard error.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct TalkArgs {
    /// Say nothing but results, warnings and errors
    #[arg(help_heading = "Output", short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more: the engine, its choices, the recipe, and each file that is written
    #[arg(help_heading = "Output", short, long, global = true)]
    pub verbose: bool,
}

#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// Shell to complete commands and flags in
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Folder for a page of each command, such as ~/.local/share/man/man1
    #[arg(help_heading = "Output", long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct DevicesArgs {
    /// Print one line of JSON
    #[arg(help_heading = "Output", long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct InfoArgs {
    /// A checkpoint, weights, a run's folder, or its run.json
    pub file: PathBuf,
    /// Print one line of JSON
    #[arg(help_heading = "Output", long)]
    pub json: bool,
}
