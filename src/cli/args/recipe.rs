//! The recipes by name.

use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;

use crate::recipe::Recipe;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RecipeName {
    /// A small network input and few clusters, for a few hundred images and two cores
    Demo,
    /// A folder of some 30 to 3,000 photos without labels, on two cores; the number of clusters is
    /// chosen from them
    Photos,
    /// PiCIE with the numbers of the paper's supplement
    Picie,
    /// PiCIE with the released code's numbers and passes
    PicieReleased,
    /// PiCIE with an auxiliary over-clustering (+H)
    PicieH,
    /// Modified DeepCluster, with the supplement's numbers
    Mdc,
    /// Modified DeepCluster, as released
    MdcReleased,
    /// Invariant Information Clustering
    Iic,
    /// The same with the first stages of the backbone only
    #[value(name = "iic-res12")]
    IicRes12,
    /// Supervised training: cross-entropy on labels
    Supervised,
    /// Supervised training that starts from a checkpoint, given by --weights FILE
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

/// The recipe that a flag names: one of picie's own, or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecipeArg {
    Named(RecipeName),
    /// A recipe as JSON, or the `run.json` of a run.
    File(PathBuf),
}

impl FromStr for RecipeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(name) = RecipeName::from_str(text, false) {
            return Ok(RecipeArg::Named(name));
        }
        if text.ends_with(".json") {
            return Ok(RecipeArg::File(text.into()));
        }
        let names = RecipeName::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<String> = names.map(|name| name.get_name().to_string()).collect();
        Err(format!("use a file that ends in .json, or one of {}", names.join(", ")))
    }
}

#[derive(Debug, clap::Args)]
pub struct RecipesArgs {
    /// Recipe whose numbers are shown, by the names that --set takes [default: none, but a line of
    /// each recipe]
    #[arg(value_enum, value_name = "NAME")]
    pub name: Option<RecipeName>,
    /// Print JSON: all numbers, as run.json has them
    #[arg(help_heading = "Output", long)]
    pub json: bool,
}
