//! The reading of a run's images: those that it learns from, and those that it is evaluated on.

use std::collections::BTreeSet;

use crate::base::say::warn;
use crate::base::stats::spread;
use crate::base::{Error, Result};
use crate::cli::bar::FileBar;
use crate::cli::choose;
use crate::cli::read::{Reader, account};
use crate::cli::settings::Undecided;
use crate::data::{self, Account, Dataset, PictureSet, Square};
use crate::recipe::Method;
use crate::train::{SHOWN, Sets, Settings};

/// Reads the images that the settings name, with the account of the folder of those to learn from.
/// Fails if they cannot be read, or lack labels that the recipe needs, or if fewer clusters than
/// classes are to be matched.
pub fn load(settings: &Settings, read: Reader, undecided: Undecided) -> Result<(Sets, Account)> {
    let mut accounts = BTreeSet::new();
    let mut open = |split: &str| -> Result<Dataset> {
        let bar = FileBar::new("select");
        let mut set =
            data::open(&settings.data, settings.dataset, split, settings.classes, &|d, t| {
                bar.set(d, t)
            })?;
        bar.finish();
        // Splits may be of one folder, which was told of before.
        if accounts.insert(set.account.clone()) {
            account(&set);
        }
        set.items.truncate(settings.limit.unwrap_or(usize::MAX));
        Ok(set)
    };
    let recipe = &settings.recipe;
    let stored = Square::new(recipe.stored, recipe.fit);
    let shown_as = Square::new(recipe.eval_size, recipe.fit);
    let set = open(&settings.split)?;
    let train = match recipe.method {
        Method::Supervised => {
            let store = read.labelled(&set, stored, "read labels")?;
            if store.occurring()? == 0 {
                let what = format!("no pixel of the split {} has one of the classes", set.split);
                return Err(Error::file(
                    &settings.data,
                    what,
                    "the recipe learns from labels: choose other --classes or --split",
                ));
            }
            PictureSet::Labelled(store)
        }
        _ => PictureSet::Plain(read.images(&set, stored, "read images")?),
    };
    let shown = || {
        let items = &train.images().items;
        let few = Dataset {
            items: spread(items.len(), SHOWN).into_iter().map(|i| items[i].clone()).collect(),
            ..set.clone()
        };
        read.images(&few, shown_as, "read for pictures").map(PictureSet::Plain)
    };
    // Few recipes need labels to train. If there are none, pictures show the clusters of training
    // images.
    let val = if set.is_split() { open(&settings.val_split) } else { Ok(set.clone()) };
    let val = match val {
        Ok(val) if val.taxonomy.is_some() && val.is_labelled() => {
            let store = read.labelled(&val, shown_as, "read labels")?;
            let occur = store.occurring()?;
            recipe
                .matching
                .check(occur, if undecided.clusters { choose::MOST } else { recipe.clusters })?;
            if occur > 0 {
                PictureSet::Labelled(store)
            } else {
                warn(format_args!(
                    "no evaluation: no pixel of {} has one of the classes",
                    val.split
                ));
                shown()?
            }
        }
        Ok(val) => {
            if let Some(why) = val.unlabelled() {
                warn(format_args!("no evaluation: {why}"));
            }
            shown()?
        }
        // A data set need not have a val split, but it is an error if it lacks one that was asked
        // for.
        Err(e) if settings.val_split == "val" && !matches!(e, Error::Interrupted { .. }) => {
            warn(format_args!("no evaluation: {e}"));
            shown()?
        }
        Err(e) => return Err(e),
    };
    Ok((Sets { train, val }, set.account))
}
