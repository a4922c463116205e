//! The reading of images by commands: with a progress bar, from the cache if it has them, and with
//! a message about images that were left out.

use std::os::unix::fs::MetadataExt;

use crate::base::say::warn;
use crate::base::{Result, memory, tell};
use crate::cli::args::KeepArgs;
use crate::cli::bar::FileBar;
use crate::cli::paths::cache;
use crate::data::{Dataset, EvalStore, ImageStore, Load, Square};

/// The bytes of files from which on a set is kept: one core decodes this much in about a second.
const KEPT_FROM: u64 = 32 << 20;
/// The budget for images in memory where the system does not say what memory there is.
const USUAL_BUDGET: u64 = 4 << 30;

/// Reads images as the flags `--strict`, `--no-cache` and `--no-exif` say.
#[derive(Clone, Copy)]
pub struct Reader {
    /// Whether an image that cannot be read is an error.
    strict: bool,
    /// Whether decoded images are kept in the cache folder.
    keep: bool,
    /// Whether images are turned upright as their EXIF orientation says.
    exif: bool,
}

/// The bytes that images may take in memory where their set is not kept in a file: a quarter of
/// what is to be had.
/// A set is followed by another one and by the plan of the network, and the system caches the files
/// that are read.
fn budget() -> u64 {
    memory::available().map_or(USUAL_BUDGET, |bytes| bytes / 4)
}

impl Reader {
    /// Options as the flags give them.
    pub fn new(strict: bool, keep: &KeepArgs, exif: bool) -> Self {
        Reader { strict, keep: !keep.no_cache, exif }
    }

    /// Reads the images, with a progress bar of the name `name`; labels are not looked at.
    pub fn images(self, set: &Dataset, square: Square, name: &'static str) -> Result<ImageStore> {
        let store = self.load(square, name, |load| ImageStore::load(set, load))?;
        report(&store);
        Ok(store)
    }

    /// Reads the images with their labels.
    pub fn labelled(self, set: &Dataset, square: Square, name: &'static str) -> Result<EvalStore> {
        let store = self.load(square, name, |load| EvalStore::load(set, load))?;
        report(&store.images);
        Ok(store)
    }

    fn load<T>(
        self,
        square: Square,
        name: &'static str,
        store: impl FnOnce(&Load) -> Result<T>,
    ) -> Result<T> {
        let (bar, cache) = (FileBar::new(name), cache());
        let load = Load {
            square,
            budget: budget(),
            cache: &cache,
            keep: self.keep.then_some(KEPT_FROM),
            exif: self.exif,
            strict: self.strict,
            on_progress: &|done, total| bar.set(done, total),
        };
        let store = store(&load)?;
        bar.finish();
        Ok(store)
    }
}

/// Tells the user what lies in the folders of a set beside its images.
pub fn account(set: &Dataset) {
    let Some(line) = set.account.line(&set.root, set.items.len()) else { return };
    if set.account.misses() { warn(line) } else { tell(line) }
}

/// Tells the user where the images come from, what did not go as it should, and which images were
/// left out.
fn report(store: &ImageStore) {
    store.notes.iter().for_each(tell);
    if let Some(kept) = &store.kept {
        let (images, path) = (store.len(), kept.path.display());
        if kept.reused {
            tell(format_args!("images: {images} from the cache ({path})"));
        } else {
            let mib = kept.path.metadata().map_or(0, |stat| stat.size()) >> 20;
            tell(format_args!(
                "images: {images} kept for the next start, {mib} MiB ({path}; see picie cache, \
                 --no-cache)"
            ));
        }
    }
    for why in &store.skipped {
        warn(format_args!("left out: {why}"));
    }
    if !store.skipped.is_empty() {
        warn(format_args!("{} images left out, {} used", store.skipped.len(), store.len()));
    }
}
