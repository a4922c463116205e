//! What was typed.

mod baselines;
mod cache;
mod trained;

use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, Subcommand, ValueEnum};

use crate::data::{Classes, DataLayout};
use crate::device::cuda::Autotune;
use crate::device::ops::Merge;
use crate::eval::Matching;
use crate::net::Backbone;
use crate::net::weights::Source;
use crate::recipe::{Balance, ClassifierKind, Freeze, Laterals, Recipe};
use crate::train::MOST_UNSEEN;
pub use baselines::BaselinesArgs;
pub use cache::{CacheArgs, KeepArgs};
pub use trained::{
    ClassifierName, CompareArgs, EvalArgs, NeighborsArgs, Query, SegmentArgs, SetArgs,
};

/// Unsupervised semantic segmentation: trains PiCIE (CVPR 2021) on your images, evaluates it,
/// segments your photos.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train on a folder of images; without arguments, on a small data set of drawn scenes
    Train(Box<TrainArgs>),
    /// Evaluate a checkpoint: its scores where images have labels, else what can be measured
    /// without
    Eval(EvalArgs),
    /// Measure what trains nothing on the same images: the largest class, and k-means of colours
    /// (Lab), of colours and height, of the features of a random network, and of an ImageNet
    /// network's pyramid and stages
    Baselines(BaselinesArgs),
    /// Train with several values of one number, or several recipes, and several seeds; print the
    /// table
    Sweep(Box<SweepArgs>),
    /// Segment photos: a label PNG and an overlay PNG each
    Segment(SegmentArgs),
    /// Find the pixels of a data set that are most like a pixel, by the cosine of their features
    Neighbors(NeighborsArgs),
    /// Draw what several checkpoints make of the same images, side by side
    Compare(CompareArgs),
    /// Draw a small data set of scenes, in the layout of COCO-Stuff
    Scenes(ScenesArgs),
    /// Measure images per second, on random images or those of a folder, and every op beside its
    /// floor
    Bench(BenchArgs),
    /// Show what this machine computes with
    Devices,
    /// List what is kept in the user's cache folder: decoded images, measured engines, drawn scenes
    Cache(CacheArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RecipeName {
    /// A small network input and few clusters, for a few hundred images and two cores
    Demo,
    /// A folder of some 30 to 3,000 photos without labels, on two cores; the number of clusters is
    /// chosen from them
    Photos,
    /// The numbers of the paper's supplement
    Picie,
    /// The released code's numbers and passes
    PicieReleased,
    /// PiCIE with an auxiliary over-clustering (+H)
    PicieH,
    /// Modified DeepCluster, with the supplement's numbers
    Mdc,
    /// Modified DeepCluster, as released
    MdcReleased,
    /// Invariant information clustering
    Iic,
    /// The same with the first stages of the backbone only
    #[value(name = "iic-res12")]
    IicRes12,
    /// Cross-entropy on labels
    Supervised,
    /// The same, to start from a checkpoint: --weights FILE
    Transfer,
}

impl RecipeName {
    pub fn recipe(self) -> Recipe {
        match self {
            RecipeName::Demo => Recipe::demo(),
            RecipeName::Photos => Recipe::photos(),
            RecipeName::Picie => Recipe::picie(),
            RecipeName::PicieReleased => Recipe::picie_released(),
            RecipeName::PicieH => Recipe::picie_h(),
            RecipeName::Mdc => Recipe::mdc(),
            RecipeName::MdcReleased => Recipe::mdc_released(),
            RecipeName::Iic => Recipe::iic(),
            RecipeName::IicRes12 => Recipe::iic_res12(),
            RecipeName::Supervised => Recipe::supervised(),
            RecipeName::Transfer => Recipe::transfer(),
        }
    }
}

/// `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda(0)),
            _ => match text.strip_prefix("cuda:").map(str::parse) {
                Some(Ok(ordinal)) => Ok(Device::Cuda(ordinal)),
                _ => Err("use auto, cpu, cuda or cuda:N".into()),
            },
        }
    }
}

/// `auto`, or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clusters {
    /// To be chosen from the images.
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

/// The element type of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    Bf16,
    F16,
    F32,
}

/// What computes, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct EngineArgs {
    /// What computes: auto (the first GPU where there is one), cpu, cuda, or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: Device,
    /// Element type of activations; sums, statistics and masters of the weights are f32 [default:
    /// bf16 on a GPU, f32 on the CPU]
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,
    /// How cuDNN's engines are chosen on a GPU: off takes the first that is offered, cached what
    /// was chosen before (and else the first), load what was measured before (and measures what was
    /// not), exhaustive measures all [default: load where networks are trained or measured (train,
    /// sweep, bench), else cached]
    #[arg(long, value_enum)]
    pub autotune: Option<Autotune>,
    /// Use only engines that give the same bits every time
    #[arg(long)]
    pub deterministic: bool,
    /// Launch op by op on a GPU instead of replaying recorded steps: profilers then see names
    #[arg(long)]
    pub no_graph: bool,
}

/// The numbers of a recipe that decide what a step computes.
#[derive(Clone, Debug, clap::Args)]
pub struct ShapeArgs {
    /// Side of the network's input in pixels, a multiple of 32
    #[arg(long, value_name = "R")]
    pub size: Option<usize>,
    /// Side of the stored images that views are cut from
    #[arg(long, value_name = "S")]
    pub stored: Option<usize>,
    /// Images of a training step
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Images of a step of the passes without gradients
    #[arg(long, value_name = "N")]
    pub batch_cluster: Option<usize>,
    /// Clusters to find; auto chooses 6 to 12 before training, as many as two halves of the images
    /// agree on
    #[arg(long, value_name = "K")]
    pub clusters: Option<Clusters>,
    /// Clusters of the auxiliary over-clustering of PiCIE+H and IIC; 0 for none
    #[arg(long, value_name = "K")]
    pub auxiliary: Option<usize>,
    /// The residual network below the pyramid [default: the recipe's, resnet18]
    #[arg(long, value_enum)]
    pub backbone: Option<&'static Backbone>,
    /// Stages of the backbone, with their laterals: 4, or 2 or 1 as IIC-res12 has
    #[arg(long, value_name = "N")]
    pub levels: Option<usize>,
    /// Concatenate the Sobel gradient to the input, as the paper does for MDC and IIC without
    /// pretrained weights
    #[arg(long)]
    pub sobel: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub struct TrainArgs {
    /// Folder with the images [default: scenes drawn into the user's cache folder]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// How the folder is laid out [default: detected]
    #[arg(long, value_enum)]
    pub dataset: Option<&'static DataLayout>,
    /// Split or splits to train on, with commas between [default: train]
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// Split or splits to evaluate on after each epoch [default: val]
    #[arg(long, value_name = "NAME")]
    pub val_split: Option<String>,
    /// The classes to evaluate on [default: 27]
    #[arg(long, value_enum)]
    pub classes: Option<Classes>,
    /// The system to train [default: demo without --data; photos for a folder without labels on the
    /// CPU; else picie]; without --data its numbers are made small for the scenes
    #[arg(long, value_enum)]
    pub recipe: Option<RecipeName>,
    /// Folder for checkpoints, metrics and pictures [default: the next free runs/RECIPE-NNN]; of a
    /// sweep, the folder of its runs [default: runs/sweep-NAME]
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Continue the run in --run [default: the newest in runs/]
    #[arg(long)]
    pub resume: bool,
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// Rounds of k-means, labels and training
    #[arg(long, value_name = "N")]
    pub epochs: Option<usize>,
    /// Adam's learning rate
    #[arg(long, value_name = "F")]
    pub lr: Option<f32>,
    /// How clusters are weighted in the loss
    #[arg(long, value_enum)]
    pub balance: Option<Balance>,
    /// How pyramid levels are merged
    #[arg(long, value_enum)]
    pub merge: Option<Merge>,
    /// Whether MDC learns a layer of its own, or scores by the centroids
    #[arg(long, value_enum)]
    pub classifier: Option<ClassifierKind>,
    /// What does not learn; backbone leaves a linear probe [supervised, transfer]
    #[arg(long, value_enum)]
    pub freeze: Option<Freeze>,
    /// Weight of the marginals' entropies in IIC
    #[arg(long, value_name = "F")]
    pub lambda: Option<f32>,
    /// Which classes the clusters are scored as; many-to-one is for over-clustering
    #[arg(long, value_enum)]
    pub matching: Option<Matching>,
    /// Batches that k-means starts from
    #[arg(long, value_name = "N")]
    pub init_batches: Option<usize>,
    /// Batches between two updates of the centroids
    #[arg(long, value_name = "N")]
    pub update_every: Option<usize>,
    /// Iterations of k-means on the first batches
    #[arg(long, value_name = "N")]
    pub kmeans_iters: Option<usize>,
    /// Any other number of the recipe, by its name in run.json, such as augment.grey_p=0.1 or
    /// label_metric=cosine
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Weights to start from: imagenet (a ResNet-18 in this binary), none (random numbers, with the
    /// paper's numbers for them), torchvision (its own file of the backbone in torch's cache
    /// folder), or a file: safetensors or a PyTorch checkpoint [default: the recipe's]
    #[arg(long, value_name = "SOURCE")]
    pub weights: Option<Source>,
    /// How the laterals of the pyramid begin: random, or pca (principal components of the network's
    /// last stages on these images)
    #[arg(long, value_enum)]
    pub laterals: Option<Laterals>,
    /// Side of the network's input and of the label maps in evaluation, a multiple of 32 [default:
    /// the recipe's, in proportion to --size]
    #[arg(long, value_name = "R")]
    pub eval_size: Option<usize>,
    /// Where all random draws come from [default: 1]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Use the first N images only
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Stop at the first image that cannot be read, instead of leaving it out
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub keep: KeepArgs,
    /// Print where every tensor would lie in memory, and stop
    #[arg(long)]
    pub plan: bool,
    /// Steps between two looks at whether their losses are finite; a look waits for the GPU.
    /// Checkpoints are always checked
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=MOST_UNSEEN as i64))]
    pub check_finite: u8,
    /// Optimizer steps A to B (without B) that a profiler is to record, counted from 1 [with nsys
    /// --capture-range cudaProfilerApi]
    #[arg(long, value_name = "A:B", value_parser = steps)]
    pub profile_steps: Option<Range<u64>>,
    #[command(flatten)]
    pub engine: EngineArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub struct SweepArgs {
    /// What differs from run to run: lambda, recipe, or a number of the recipe by its name in
    /// run.json, such as clusters or augment.grey_p
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Its values, with commas between [default of lambda: the supplement's]
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    pub values: Vec<String>,
    /// A run for each of these seeds; the table then has means and standard deviations
    #[arg(long, default_value = "1", value_name = "A,B,C", value_delimiter = ',')]
    pub seeds: Vec<u64>,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub train: TrainArgs,
}

/// A:B with A < B.
fn steps(text: &str) -> Result<Range<u64>, String> {
    let range = text.split_once(':').and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    range
        .filter(|range| !range.is_empty())
        .ok_or_else(|| "use A:B with A below B, such as 20:30".into())
}

#[derive(Debug, clap::Args)]
pub struct ScenesArgs {
    /// A new folder for them
    pub dir: PathBuf,
    /// Training images
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub train: usize,
    /// Validation images
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub val: usize,
    /// Where all random draws come from
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
}

#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// The set of numbers to start from
    #[arg(long, value_enum, default_value = "picie-released")]
    pub recipe: RecipeName,
    /// Folder with images [default: random ones]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Images, of a folder at most; more than fit on a GPU are copied to it batch by batch
    #[arg(long, default_value_t = 2048, value_name = "N")]
    pub images: usize,
    /// Measured epochs
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub epochs: usize,
    /// Epochs before them; the first two of a GPU load libraries and record steps
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub warm_up: usize,
    /// Steps between two looks at whether their losses are finite; a look waits for the GPU.
    /// Checkpoints are always checked
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=MOST_UNSEEN as i64))]
    pub check_finite: u8,
    #[command(flatten)]
    pub keep: KeepArgs,
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub engine: EngineArgs,
}
