//! The flags of `picie baselines`.

use crate::cli::args::{EngineArgs, SetArgs};
use crate::data::Classes;
use crate::eval::Matching;
use crate::net::Backbone;
use crate::net::weights::Source;

#[derive(Debug, clap::Args)]
pub struct BaselinesArgs {
    #[command(flatten)]
    pub set: SetArgs,
    /// Split or splits that k-means is fitted on, separated by commas
    #[arg(help_heading = "Data", long, default_value = "train", value_name = "NAME")]
    pub train_split: String,
    /// Clusters to find: as many as the networks have that you compare with
    #[arg(help_heading = "Recipe", long, value_name = "K")]
    pub clusters: usize,
    /// Side of the images in pixels, a multiple of 32
    #[arg(help_heading = "Recipe", long, default_value_t = 256, value_name = "R")]
    pub size: usize,
    /// Classes to compare with [default: 27, if images have labels]
    #[arg(help_heading = "Data", long, value_enum)]
    pub classes: Option<Classes>,
    /// Seeds, each for a clustering, and for the random weights of a row, if it has any; with
    /// several, the table has means and standard deviations
    #[arg(
        help_heading = "Recipe",
        long,
        default_value = "1",
        value_name = "A,B,C",
        value_delimiter = ','
    )]
    pub seeds: Vec<u64>,
    /// How clusters are matched to classes for scores [default: one-to-one]
    #[arg(help_heading = "Expert", long, value_enum)]
    pub matching: Option<Matching>,
    /// The residual network below the pyramid
    #[arg(help_heading = "Recipe", long, value_enum, default_value = "resnet18")]
    pub backbone: &'static Backbone,
    /// Weights of the rows of a trained network: imagenet (a ResNet-18 in this binary), torchvision
    /// (its own file of the backbone in torch's cache folder), or a file: safetensors or a PyTorch
    /// checkpoint; none leaves these rows out
    #[arg(help_heading = "Recipe", long, default_value = "imagenet", value_name = "SOURCE")]
    pub weights: Source,
    /// Print one line of JSON
    #[arg(help_heading = "Output", long)]
    pub json: bool,
    #[command(flatten)]
    pub engine: EngineArgs,
}
