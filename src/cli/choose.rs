//! What the images decide about a run: its number of clusters, and its epochs.

use std::ops::RangeInclusive;

use crate::base::{Result, tell};
use crate::cli::engine::{Engine, Job};
use crate::cli::plan::Undecided;
use crate::data::{ImageStore, PictureSet};
use crate::device::Backend;
use crate::eval::Matching;
use crate::method::{Candidate, Chooser, TrainSet, chosen, plan_images};
use crate::net::weights::{Start, Weights};
use crate::report::{Progress, table};
use crate::train::{Sets, Settings};

/// The numbers of clusters to choose among.
const FEWEST: usize = 6;
pub const MOST: usize = 12;

/// Settles what is undecided. Laterals that were computed on the way become part of `start`.
pub fn choose(
    undecided: Undecided,
    engine: &Engine,
    (settings, start): (&mut Settings, &mut Start),
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
    let (candidates, laterals) =
        engine.run(Choose { settings, start, images, range: fewest..=MOST })?;
    settings.recipe.clusters = chosen(&candidates);
    tell(table::clusters(&candidates, settings.recipe.clusters));
    if let (Some(laterals), Some(weights)) = (laterals, &mut start.weights) {
        weights.tensors.extend(laterals.tensors);
    }
    Ok(())
}

struct Choose<'a> {
    settings: &'a Settings,
    start: &'a Start,
    images: &'a ImageStore,
    range: RangeInclusive<usize>,
}

impl Job for Choose<'_> {
    type Out = (Vec<Candidate>, Option<Weights>);

    fn run<B: Backend>(self, dev: &mut B) -> Result<Self::Out> {
        let Choose { settings, start, images, range } = self;
        let (layout, chooser) = plan_images(dev, |dev, layout, resident| {
            let set = TrainSet { images: images.len(), resident };
            Chooser::plan(dev, layout, &settings.recipe, settings.seed, set, range.clone())
        })?;
        dev.reserve(&layout)?;
        let phase = Progress::phase("clusters", chooser.images(start) as u64);
        let found = chooser.run(dev, start, images, &mut |n| phase.tick(n))?;
        phase.finish();
        Ok(found)
    }
}
