//! The choice of numbers of a run that depend on its images: clusters and epochs.

use crate::base::{Result, tell};
use crate::cli::engine::Chosen;
use crate::cli::settings::Undecided;
use crate::data::PictureSet;
use crate::device::Layout;
use crate::eval::Matching;
use crate::method::{Chooser, chosen};
use crate::net::weights::Start;
use crate::report::{Progress, table};
use crate::train::{Sets, Settings};

/// The smallest number of clusters to choose from.
const FEWEST: usize = 6;
/// The largest number of clusters to choose from.
pub const MOST: usize = 12;

/// Chooses the undecided numbers and writes them to the settings. Laterals that are computed on the
/// way become part of `start`.
pub fn choose(
    undecided: Undecided,
    engine: &Chosen,
    settings: &mut Settings,
    start: &mut Start,
    sets: &Sets,
) -> Result<()> {
    let images = sets.train.images();
    if undecided.epochs {
        settings.recipe.epochs = settings.recipe.photos_epochs(images.len());
    }
    if !undecided.clusters {
        return Ok(());
    }
    if images.len() < 2 {
        tell(format_args!(
            "{} clusters: one image has no halves to choose by",
            settings.recipe.clusters
        ));
        return Ok(());
    }
    let fewest = match &sets.val {
        PictureSet::Labelled(val) if settings.recipe.matching == Matching::OneToOne => {
            val.occurring()?.max(FEWEST)
        }
        _ => FEWEST,
    };
    if fewest > MOST {
        tell(format_args!("{fewest} clusters: as many as classes occur in the labels"));
        settings.recipe.clusters = fewest;
        return Ok(());
    }
    let dev = &mut *engine.open()?;
    let mut layout = Layout::new(dev.dtype());
    let (recipe, seed, range) = (&settings.recipe, settings.seed, fewest..=MOST);
    let mut chooser = Chooser::plan(dev, &mut layout, recipe, seed, images.len(), range)?;
    chooser.place_images(dev, &mut layout)?;
    dev.reserve(&layout)?;
    let phase = Progress::phase("clusters", chooser.images(start) as u64);
    let (candidates, laterals) = chooser.run(dev, start, images, &mut |n| phase.tick(n))?;
    phase.finish();
    settings.recipe.clusters = chosen(&candidates);
    tell(table::clusters(&candidates, settings.recipe.clusters));
    if let (Some(laterals), Some(weights)) = (laterals, &mut start.weights) {
        weights.tensors.extend(laterals.tensors);
    }
    Ok(())
}
