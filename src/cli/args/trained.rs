//! Commands with a trained network.

use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;

use crate::cli::args::{EngineArgs, KeepArgs};
use crate::data::{Classes, DataLayout};
use crate::eval::Matching;

/// The images that a command looks at.
#[derive(Clone, Debug, clap::Args)]
pub struct SetArgs {
    /// Folder with the images, and their label maps where labels are needed
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// How the folder is laid out [default: detected]
    #[arg(long, value_enum)]
    pub dataset: Option<&'static DataLayout>,
    /// Split or splits, with commas between
    #[arg(long, default_value = "val", value_name = "NAME")]
    pub split: String,
    /// Use the first N images only
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Stop at the first image that cannot be read or lacks a label that is needed, instead of
    /// leaving it out
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub keep: KeepArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ClassifierName {
    /// The checkpoint's centroids
    #[default]
    Trained,
    /// A k-means of the evaluated images' own features
    Kmeans,
    /// Random directions
    Random,
}

#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    /// A checkpoint of picie, or of the released PiCIE code
    #[arg(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    #[command(flatten)]
    pub set: SetArgs,
    /// Side of the network's input in pixels [default: the checkpoint's]
    #[arg(long, value_name = "R")]
    pub size: Option<usize>,
    /// The classes to compare with [default: 27, where images have labels]
    #[arg(long, value_enum)]
    pub classes: Option<Classes>,
    /// What assigns pixels to clusters
    #[arg(long, value_enum, default_value = "trained")]
    pub classifier: ClassifierName,
    /// Which classes the clusters are scored as [default: the checkpoint's]
    #[arg(long, value_enum)]
    pub matching: Option<Matching>,
    /// Evaluate under the transforms of training: each alone, together, all (twelve rows)
    #[arg(long)]
    pub tta: bool,
    /// Average the scores of each picture and its mirror image, as later work evaluates
    #[arg(long, conflicts_with = "tta")]
    pub flip_tta: bool,
    /// Where the draws of --tta come from
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub engine: EngineArgs,
}

#[derive(Debug, clap::Args)]
pub struct SegmentArgs {
    /// A checkpoint of picie, or of the released PiCIE code
    #[arg(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    /// Folder for the PNGs
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Short side of the network's input in pixels [default: what the checkpoint was trained on]
    #[arg(long, value_name = "R")]
    pub size: Option<usize>,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Photos of any size
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct CompareArgs {
    /// A checkpoint of picie, or of the released PiCIE code; once for each column, in order
    #[arg(long = "checkpoint", value_name = "FILE", required = true)]
    pub checkpoints: Vec<PathBuf>,
    #[command(flatten)]
    pub set: SetArgs,
    /// The classes to colour by: each cluster has its commonest one, a network trained on labels
    /// its own
    #[arg(long, value_enum, default_value = "27")]
    pub classes: Classes,
    /// Images to show: the first N. Classes of clusters come from all images
    #[arg(long, default_value_t = 6, value_name = "N")]
    pub images: usize,
    /// The PNG to write: image | a column a checkpoint | ground truth. Networks of other input
    /// sizes see the images at their own; all are shown at the largest
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// A pixel of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub image: String,
    pub x: usize,
    pub y: usize,
}

impl FromStr for Query {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts =
            text.rsplit_once(':').and_then(|(image, at)| Some((image, at.split_once(',')?)));
        let query = parts.and_then(|(image, (x, y))| {
            Some((image.to_string(), x.parse().ok()?, y.parse().ok()?))
        });
        let (image, x, y) = query.ok_or("use IMAGE:x,y, such as cat.jpg:120,80")?;
        Ok(Query { image, x, y })
    }
}

#[derive(Debug, clap::Args)]
pub struct NeighborsArgs {
    /// A checkpoint of picie, or of the released PiCIE code
    #[arg(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    #[command(flatten)]
    pub set: SetArgs,
    /// A pixel to find the like of: column and row, from 0, of any image file, or of an image of
    /// the data set by its name; once for each row of the sheet
    #[arg(long = "query", value_name = "IMAGE:x,y", required = true)]
    pub queries: Vec<Query>,
    /// Neighbours of each query. Every pixel of the feature map is searched (one for 4 × 4 of the
    /// network's input), but an image is shown once, with its best pixel, and a query's own image
    /// is not
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=63))]
    pub top: u8,
    /// All pixels count: an image may be shown several times, and a query's own image, too
    #[arg(long)]
    pub every_pixel: bool,
    /// The PNG to write: a row a query, its own pixel and then its neighbours with their cosines
    #[arg(long, default_value = "neighbors.png", value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    pub engine: EngineArgs,
}
