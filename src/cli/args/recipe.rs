//! The recipes by name.

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
