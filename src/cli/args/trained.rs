//! The flags of commands that use a trained network.

use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;

use crate::cli::args::{EngineArgs, KeepArgs};
use crate::data::{Classes, DataLayout};
use crate::eval::Matching;

/// Whether images are turned.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct TurnArgs {
    /// Take images as they are stored, and do not turn them upright as their EXIF orientation says
    #[arg(help_heading = "Data", long)]
    pub no_exif: bool,
}

impl TurnArgs {
    /// As a network takes its images that was trained with `exif`; a flag is a flag, too.
    pub fn of(self, exif: bool) -> Self {
        TurnArgs { no_exif: self.no_exif || !exif }
    }
}

/// The images that a command reads.
#[derive(Clone, Debug, clap::Args)]
pub struct SetArgs {
    /// Folder with the images, and with their label maps if the command needs them
    #[arg(help_heading = "Data", long, value_name = "DIR")]
    pub data: PathBuf,
    /// Layout of the folder [default: detected]
    #[arg(help_heading = "Data", long, value_enum)]
    pub dataset: Option<&'static DataLayout>,
    /// Split or splits to read, separated by commas
    #[arg(help_heading = "Data", long, default_value = "val", value_name = "NAME")]
    pub split: String,
    /// Use the first N images only
    #[arg(help_heading = "Data", long, value_name = "N")]
    pub limit: Option<usize>,
    /// Stop at the first image that cannot be read, or has no label although one is needed, instead
    /// of leaving it out
    #[arg(help_heading = "Data", long)]
    pub strict: bool,
    #[command(flatten)]
    pub turn: TurnArgs,
    #[command(flatten)]
    pub keep: KeepArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ClassifierName {
    /// The checkpoint's centroids
    #[default]
    Trained,
    /// Centroids of a k-means of the evaluated images' features
    Kmeans,
    /// Random centroids
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
    #[arg(help_heading = "Recipe", long, value_name = "R")]
    pub size: Option<usize>,
    /// Classes to compare with [default: 27, if images have labels]
    #[arg(help_heading = "Data", long, value_enum)]
    pub classes: Option<Classes>,
    /// What assigns pixels to clusters
    #[arg(help_heading = "Expert", long, value_enum, default_value = "trained")]
    pub classifier: ClassifierName,
    /// How clusters are matched to classes for scores [default: the checkpoint's]
    #[arg(help_heading = "Expert", long, value_enum)]
    pub matching: Option<Matching>,
    /// Evaluate on images changed as in training: by each transform alone and by several (twelve
    /// rows)
    #[arg(long)]
    pub tta: bool,
    /// Average the scores of each picture and its mirror image, as later papers do
    #[arg(long, conflicts_with = "tta")]
    pub flip_tta: bool,
    /// Seed of the random draws of --tta
    #[arg(help_heading = "Recipe", long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Print one line of JSON
    #[arg(help_heading = "Output", long)]
    pub json: bool,
    #[command(flatten)]
    pub engine: EngineArgs,
}

#[derive(Debug, clap::Args)]
pub struct SegmentArgs {
    /// A checkpoint of picie, or of the released PiCIE code
    #[arg(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    /// Folder for the PNGs, for segments.json and for sheet.png, which shows all photos
    #[arg(help_heading = "Output", long, value_name = "DIR")]
    pub out: PathBuf,
    /// Short side of the network's input in pixels [default: twice the training's; as in training
    /// where that was on scaled pictures]
    #[arg(help_heading = "Recipe", long, value_name = "R")]
    pub size: Option<usize>,
    /// Average the scores of each photo and its mirror image
    #[arg(help_heading = "Recipe", long)]
    pub flip: bool,
    /// Average the scores at these multiples of the input's size, such as 1,1.5
    #[arg(help_heading = "Recipe", long, value_name = "A,B,C", value_delimiter = ',', default_value = "1", value_parser = scale)]
    pub scales: Vec<f64>,
    /// Let borders of clusters follow edges of the photo (guided filter of the scores), and give
    /// specks to what surrounds them
    #[arg(help_heading = "Recipe", long, value_enum, value_name = "WHETHER", default_value = "on", default_missing_value = "on", num_args = 0..=1, require_equals = true)]
    pub refine: Switch,
    /// The most pixels of a side that the network sees at once: a larger input (see --size) is cut
    /// into tiles of that, which overlap by a quarter
    #[arg(help_heading = "Engine", long, value_name = "PIXELS", default_value = "1024", value_parser = tile)]
    pub tile: usize,
    /// Write a PNG of each cluster in each photo, too, which is transparent elsewhere
    #[arg(help_heading = "Output", long)]
    pub cutouts: bool,
    /// Write the scores of all clusters, too: a safetensors file a photo with the tensor scores
    /// (height, width, clusters) of f32, at the size of the network's output
    #[arg(help_heading = "Output", long)]
    pub scores: bool,
    #[command(flatten)]
    pub turn: TurnArgs,
    /// Print one line of JSON
    #[arg(help_heading = "Output", long)]
    pub json: bool,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Photos to segment, of any size: files, folders with those at any depth, or patterns such as
    /// 'photos/**/*.jpg'
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
}

/// Whether something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// Parses a side of tiles.
fn tile(text: &str) -> Result<usize, String> {
    let side = text.parse().ok().filter(|side: &usize| *side >= 64 && side.is_multiple_of(32));
    side.ok_or_else(|| "use a multiple of 32, from 64 on".into())
}

/// Parses a multiple of the input's size.
fn scale(text: &str) -> Result<f64, String> {
    let scale = text.parse().ok().filter(|scale| (0.1..=10.0).contains(scale));
    scale.ok_or_else(|| "use numbers from 0.1 to 10".into())
}

#[derive(Debug, clap::Args)]
pub struct CompareArgs {
    /// A checkpoint of picie, or of the released PiCIE code; give one for each column, in order
    #[arg(long = "checkpoint", value_name = "FILE", required = true)]
    pub checkpoints: Vec<PathBuf>,
    #[command(flatten)]
    pub set: SetArgs,
    /// Classes to colour by: a cluster gets the class most common in it, a network trained on
    /// labels predicts its own
    #[arg(help_heading = "Data", long, value_enum, default_value = "27")]
    pub classes: Classes,
    /// Show N images, spread over all; the classes of clusters come from all images
    #[arg(long, default_value_t = 6, value_name = "N")]
    pub images: usize,
    /// Show this image instead, by its name in the data set with or without folders and ending, or
    /// its path; give one for each row, in order
    #[arg(help_heading = "Data", long, value_name = "IMAGE")]
    pub show: Vec<String>,
    /// PNG to write: image, a column for each checkpoint, ground truth. Each network sees the
    /// images at its own input size; all are shown at the largest
    #[arg(help_heading = "Output", long, value_name = "FILE")]
    pub out: PathBuf,
    /// Print one line of JSON
    #[arg(help_heading = "Output", long)]
    pub json: bool,
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// A pixel of an image that a flag names: `IMAGE:x,y`.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// A path, or the name of an image of the data set.
    pub image: String,
    /// Column, from 0. `y`: row.
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
    /// Pixel to find similar ones of, as IMAGE:x,y: column and row, from 0, in an image file, or in
    /// an image of the data set by its name, with or without folders and ending; give one for each
    /// row of the sheet
    #[arg(help_heading = "Data", long = "query", value_name = "AT", required = true)]
    pub queries: Vec<Query>,
    /// Neighbors to show for each query. Every pixel of the feature map is searched (one for 4 × 4
    /// of the network's input), but an image is shown only once, with its best pixel, and a query's
    /// own image is not shown
    #[arg(help_heading = "Output", long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=63))]
    pub top: u8,
    /// Let an image be shown several times, and a query's own image, too
    #[arg(long)]
    pub every_pixel: bool,
    /// PNG to write: a row for each query, with its own pixel and then its neighbors and their
    /// cosines
    #[arg(help_heading = "Output", long, default_value = "neighbors.png", value_name = "FILE")]
    pub out: PathBuf,
    /// Print one line of JSON
    #[arg(help_heading = "Output", long)]
    pub json: bool,
    #[command(flatten)]
    pub engine: EngineArgs,
}
