//! The command line as it is typed: commands, flags and their help texts.

mod baselines;
mod bench;
mod cache;
mod engine;
mod export;
mod name;
mod recipe;
mod recluster;
mod talk;
mod trained;

use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, Subcommand};

use crate::data::{Classes, DataLayout};
use crate::device::ops::Merge;
use crate::eval::Matching;
use crate::net::Backbone;
use crate::net::weights::Source;
use crate::recipe::{Balance, ClassifierKind, Freeze, Laterals};
use crate::report::version;
use crate::train::MOST_UNSEEN;
pub use baselines::BaselinesArgs;
pub use bench::{BenchArgs, Model};
pub use cache::{CacheArgs, KeepArgs};
pub use engine::{Device, EngineArgs, Precision};
pub use export::ExportArgs;
pub use name::NameArgs;
pub use recipe::{RecipeArg, RecipeName, RecipesArgs};
pub use recluster::ReclusterArgs;
pub use talk::{CompletionsArgs, DevicesArgs, InfoArgs, ManArgs, TalkArgs};
pub use trained::{
    ClassifierName, CompareArgs, EvalArgs, NeighborsArgs, Query, SegmentArgs, SetArgs, Switch,
    TurnArgs,
};

/// Unsupervised semantic segmentation: trains PiCIE (CVPR 2021) on your images, evaluates it,
/// segments your photos.
#[derive(Debug, Parser)]
#[command(version, long_version = version::long(), max_term_width = 80)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub talk: TalkArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train on a folder of images; without arguments, on a small data set of drawn scenes
    #[command(after_help = "Examples:
  picie train
  picie train --data photos --run runs/photos
  picie train --run runs/photos --resume")]
    Train(Box<TrainArgs>),
    /// Evaluate a checkpoint: its scores if the images have labels, else what can be measured
    /// without
    #[command(after_help = "Examples:
  picie eval --checkpoint runs/photos/checkpoint.safetensors --data photos")]
    Eval(EvalArgs),
    /// Measure baselines that train nothing: the largest class, and k-means of colours (Lab), of
    /// colours and height, of the features of a random network, and of those of an ImageNet network
    #[command(after_help = "Examples:
  picie baselines --data photos --clusters 10")]
    Baselines(BaselinesArgs),
    /// Train with several values of one setting, or several recipes, and several seeds; print a
    /// table
    #[command(after_help = "Examples:
  picie sweep lambda
  picie sweep clusters --values 6,9,12 --seeds 1,2,3 --data coco")]
    Sweep(Box<SweepArgs>),
    /// Segment photos: write a label PNG and an overlay PNG of each, and a sheet of all
    #[command(after_help = "Examples:
  picie segment --checkpoint runs/photos/checkpoint.safetensors --out out \\
      photos")]
    Segment(SegmentArgs),
    /// Name the clusters of a checkpoint, as 3=sky; without names, list them with their colours
    #[command(after_help = "Examples:
  picie name --checkpoint runs/photos/checkpoint.safetensors 3=sky 5=grass")]
    Name(NameArgs),
    /// Find another number of clusters with the network of a checkpoint, without training
    #[command(override_usage = "picie recluster --checkpoint <FILE> --data <DIR> --clusters <K> \\
           --out <FILE> [OPTIONS]")]
    #[command(after_help = "Examples:
  picie recluster --checkpoint runs/photos/checkpoint.safetensors \\
      --data photos --clusters 20 --out twenty.safetensors")]
    Recluster(ReclusterArgs),
    /// Find the pixels of a data set that are most like given pixels, by the cosine of features
    #[command(after_help = "Examples:
  picie neighbors --checkpoint runs/photos/checkpoint.safetensors \\
      --data photos --query cat.jpg:120,80")]
    Neighbors(NeighborsArgs),
    /// Draw the predictions of several checkpoints for the same images, side by side
    #[command(after_help = "Examples:
  picie compare --checkpoint a.safetensors --checkpoint b.safetensors \\
      --data coco --out both.png")]
    Compare(CompareArgs),
    /// Write a trained network for other programs: ONNX, PyTorch, or a folder as model hubs have it
    #[command(override_usage = "picie export --checkpoint <FILE> [--onnx <FILE>] \\
           [--torch <FILE>] [--folder <DIR>] [OPTIONS]")]
    #[command(after_help = "Examples:
  picie export --checkpoint runs/photos/checkpoint.safetensors --onnx net.onnx")]
    Export(ExportArgs),
    /// Draw a small data set of scenes, in the layout of COCO-Stuff
    #[command(after_help = "Examples:
  picie scenes drawn --train 64 --val 16")]
    Scenes(ScenesArgs),
    /// Measure images per second, on random images or those of a folder, and the time of every op
    /// beside the least that the hardware allows
    #[command(after_help = "Examples:
  picie bench --report bench.html
  picie bench --against before.json")]
    Bench(BenchArgs),
    /// List the recipes, or the numbers of one
    #[command(
        after_help = "Examples:\n  picie recipes photos\n  picie recipes picie --json > mine.json"
    )]
    Recipes(RecipesArgs),
    /// Say what a file is: a checkpoint, a run, or weights
    #[command(after_help = "Examples:
  picie info runs/photos/checkpoint.safetensors
  picie info runs/photos")]
    Info(InfoArgs),
    /// Show what this machine computes with
    #[command(after_help = "Examples:
  picie devices --json")]
    Devices(DevicesArgs),
    /// List what is kept in the user's cache folder: decoded images, cuDNN's measured engines,
    /// drawn scenes
    #[command(after_help = "Examples:
  picie cache --clear")]
    Cache(CacheArgs),
    /// Print the completions of a shell, to be put where it looks for them
    #[command(after_help = "Examples:
  picie completions bash > ~/.local/share/bash-completion/completions/picie")]
    Completions(CompletionsArgs),
    /// Print the manual page of picie, or write those of all commands into a folder
    #[command(after_help = "Examples:
  picie man --out ~/.local/share/man/man1")]
    Man(ManArgs),
}

/// The number of clusters that a flag names: `auto` or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clusters {
    /// The number is chosen from the images.
    Auto,
    Count(usize),
}

impl FromStr for Clusters {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Clusters::Auto),
            _ => text.parse().map(Clusters::Count).map_err(|_| "use auto or a number".into()),
        }
    }
}

/// The numbers of a recipe that decide the sizes of a step.
#[derive(Clone, Debug, clap::Args)]
pub struct ShapeArgs {
    /// Side of the network's input in pixels, a multiple of 32
    #[arg(help_heading = "Recipe", long, value_name = "R")]
    pub size: Option<usize>,
    /// Side in pixels of the stored images, from which the network's inputs are cut
    #[arg(help_heading = "Recipe", long, value_name = "S")]
    pub stored: Option<usize>,
    /// Images in a training step
    #[arg(help_heading = "Recipe", long, value_name = "N")]
    pub batch: Option<usize>,
    /// Images in a step of k-means and labelling, which need no gradients
    #[arg(help_heading = "Recipe", long, value_name = "N")]
    pub batch_cluster: Option<usize>,
    /// Clusters to find; auto chooses 6 to 12 before training: as many as random halves of the
    /// images agree on
    #[arg(help_heading = "Recipe", long, value_name = "K")]
    pub clusters: Option<Clusters>,
    /// Clusters of the auxiliary over-clustering in PiCIE+H and IIC; 0 for none
    #[arg(help_heading = "Recipe", long, value_name = "K")]
    pub auxiliary: Option<usize>,
    /// The residual network below the pyramid [default: the recipe's, resnet18]
    #[arg(help_heading = "Recipe", long, value_enum)]
    pub backbone: Option<&'static Backbone>,
    /// Stages of the backbone, with their laterals: 4, or 2 or 1 as IIC-res12 has
    #[arg(help_heading = "Recipe", long, value_name = "N")]
    pub levels: Option<usize>,
    /// Add Sobel gradients to the input, as the paper does for MDC and IIC without pretrained
    /// weights
    #[arg(help_heading = "Recipe", long)]
    pub sobel: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub struct TrainArgs {
    /// Folder with the images [default: scenes drawn into the user's cache folder]
    #[arg(help_heading = "Data", long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Layout of the folder [default: detected]
    #[arg(help_heading = "Data", long, value_enum)]
    pub dataset: Option<&'static DataLayout>,
    /// Split or splits to train on, separated by commas [default: train]
    #[arg(help_heading = "Data", long, value_name = "NAME")]
    pub split: Option<String>,
    /// Split or splits to evaluate on after each epoch, separated by commas [default: val]
    #[arg(help_heading = "Data", long, value_name = "NAME")]
    pub val_split: Option<String>,
    /// Classes to evaluate on [default: 27]
    #[arg(help_heading = "Data", long, value_enum)]
    pub classes: Option<Classes>,
    /// Method and its numbers, of those that picie recipes lists, or a file: what its --json
    /// prints, or a run.json. Those by name are made small without --data [default: demo without
    /// --data; photos for a folder without labels on the CPU; else picie]
    #[arg(help_heading = "Recipe", long, value_name = "NAME|FILE")]
    pub recipe: Option<RecipeArg>,
    /// Folder for checkpoints, metrics and pictures [default: the next free runs/RECIPE-NNN]. In a
    /// sweep, the folder for all its runs [default: runs/sweep-NAME]
    #[arg(help_heading = "Output", long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Continue the run in --run [default: the newest in runs/]; with more --epochs than it has,
    /// a finished one, too
    #[arg(help_heading = "Output", long)]
    pub resume: bool,
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// Epochs, each with k-means, labels and training
    #[arg(help_heading = "Recipe", long, value_name = "N")]
    pub epochs: Option<usize>,
    /// Keep the files of the newest N epochs only, which are for use; the checkpoint, which is for
    /// resuming, stays [default: of all epochs]
    #[arg(help_heading = "Output", long = "keep", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub keep_epochs: Option<u16>,
    /// Adam's learning rate
    #[arg(help_heading = "Recipe", long, value_name = "F")]
    pub lr: Option<f32>,
    /// How clusters are weighted in the loss
    #[arg(help_heading = "Expert", long, value_enum)]
    pub balance: Option<Balance>,
    /// How the levels of the feature pyramid are merged
    #[arg(help_heading = "Expert", long, value_enum)]
    pub merge: Option<Merge>,
    /// Whether MDC learns a layer to score pixels with, or scores by the centroids
    #[arg(help_heading = "Expert", long, value_enum)]
    pub classifier: Option<ClassifierKind>,
    /// Part of the network that is not trained; with backbone, only a linear layer is [for
    /// supervised, transfer]
    #[arg(help_heading = "Expert", long, value_enum)]
    pub freeze: Option<Freeze>,
    /// Weight of the marginals' entropies in IIC's loss
    #[arg(help_heading = "Expert", long, value_name = "F")]
    pub lambda: Option<f32>,
    /// How clusters are matched to classes for scores; many-to-one is for over-clustering
    #[arg(help_heading = "Expert", long, value_enum)]
    pub matching: Option<Matching>,
    /// First batches, whose points k-means starts from
    #[arg(help_heading = "Expert", long, value_name = "N")]
    pub init_batches: Option<usize>,
    /// Batches between two updates of the centroids
    #[arg(help_heading = "Expert", long, value_name = "N")]
    pub update_every: Option<usize>,
    /// Iterations of k-means on the points of the first batches
    #[arg(help_heading = "Expert", long, value_name = "N")]
    pub kmeans_iters: Option<usize>,
    /// Set any other number of the recipe, by its name in run.json, such as augment.grey_p=0.1 or
    /// label_metric=cosine
    #[arg(help_heading = "Expert", long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Weights to start from: imagenet (a ResNet-18 in this binary), none (random numbers, with the
    /// paper's numbers for them), torchvision (its own file of the backbone in torch's cache
    /// folder), or a file: safetensors or a PyTorch checkpoint [default: the recipe's]
    #[arg(help_heading = "Recipe", long, value_name = "SOURCE")]
    pub weights: Option<Source>,
    /// First weights of the feature pyramid's laterals: random, or pca (principal components of the
    /// network's last stages on these images)
    #[arg(help_heading = "Recipe", long, value_enum)]
    pub laterals: Option<Laterals>,
    /// Side of the network's input and of the label maps in evaluation, a multiple of 32 [default:
    /// the recipe's, in proportion to --size]
    #[arg(help_heading = "Recipe", long, value_name = "R")]
    pub eval_size: Option<usize>,
    /// Seed of all random draws [default: 1]
    #[arg(help_heading = "Recipe", long, value_name = "N")]
    pub seed: Option<u64>,
    /// Use the first N images only
    #[arg(help_heading = "Data", long, value_name = "N")]
    pub limit: Option<usize>,
    /// Stop at the first image that cannot be read, instead of leaving it out
    #[arg(help_heading = "Data", long)]
    pub strict: bool,
    #[command(flatten)]
    pub turn: TurnArgs,
    #[command(flatten)]
    pub keep: KeepArgs,
    /// Write event files for TensorBoard into the run's folder, too
    #[arg(help_heading = "Output", long)]
    pub tensorboard: bool,
    /// Print where every tensor would lie in memory, and exit
    #[arg(help_heading = "Output", long)]
    pub plan: bool,
    /// Print one line of JSON
    #[arg(help_heading = "Output", long)]
    pub json: bool,
    /// Check that losses are finite every N steps; a check waits for the GPU. Checkpoints are
    /// always checked
    #[arg(help_heading = "Expert", long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=MOST_UNSEEN as i64))]
    pub check_finite: u8,
    /// Let a profiler record the optimizer steps A to B (without B), counted from 1 [for nsys
    /// --capture-range cudaProfilerApi]
    #[arg(help_heading = "Expert", long, value_name = "A:B", value_parser = steps)]
    pub profile_steps: Option<Range<u64>>,
    #[command(flatten)]
    pub engine: EngineArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub struct SweepArgs {
    /// Setting that differs from run to run: lambda, recipe, or a number of the recipe by its name
    /// in run.json, such as clusters or augment.grey_p
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Its values, separated by commas [default for lambda: those of the paper's supplement]
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    pub values: Vec<String>,
    /// Seeds, a run for each; with several, the table has means and standard deviations
    #[arg(
        help_heading = "Recipe",
        long,
        default_value = "1",
        value_name = "A,B,C",
        value_delimiter = ','
    )]
    pub seeds: Vec<u64>,
    #[command(flatten)]
    pub train: TrainArgs,
}

/// Parses a range of steps A:B with A < B.
fn steps(text: &str) -> Result<Range<u64>, String> {
    let range = text.split_once(':').and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    range
        .filter(|range| !range.is_empty())
        .ok_or_else(|| "use A:B with A below B, such as 20:30".into())
}

#[derive(Debug, clap::Args)]
pub struct ScenesArgs {
    /// New folder for the images
    pub dir: PathBuf,
    /// Training images
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub train: usize,
    /// Validation images
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub val: usize,
    /// Seed of all random draws
    #[arg(help_heading = "Recipe", long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Print one line of JSON
    #[arg(help_heading = "Output", long)]
    pub json: bool,
}
