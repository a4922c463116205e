//! The flags of `picie recluster`.

use std::path::PathBuf;

use crate::cli::args::{EngineArgs, SetArgs};

#[derive(Debug, clap::Args)]
pub struct ReclusterArgs {
    /// A checkpoint of picie, whose network is used as it is
    #[arg(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    #[command(flatten)]
    pub set: SetArgs,
    /// Clusters to find by k-means of the images' features
    #[arg(help_heading = "Recipe", long, value_name = "K", value_parser = clap::value_parser!(u16).range(2..=4096))]
    pub clusters: u16,
    /// Checkpoint to write, for segment, eval, compare and name; a run cannot go on from it
    #[arg(help_heading = "Output", long, value_name = "FILE")]
    pub out: PathBuf,
    /// Print one line of JSON
    #[arg(help_heading = "Output", long)]
    pub json: bool,
    #[command(flatten)]
    pub engine: EngineArgs,
}
