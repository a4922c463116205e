//! The reading of images by commands: with a progress bar, from the cache if it has them, and with
//! a message about images that were left out.

use std::os::unix::fs::MetadataExt;

use crate::base::{Result, memory, tell};
use crate::cli::args::KeepArgs;
use crate::cli::bar::FileBar;
use crate::cli::paths::cache;
use crate::data::{Dataset, EvalStore, ImageStore, Load, Square};

/// The size in bytes of a set's files from which decoded images are kept. One core decodes 32 MiB
/// in about a second.
const KEPT_FROM: u64 = 32 << 20;
/// The budget in bytes if the system does not say how much memory there is.
const USUAL_BUDGET: u64 = 4 << 30;

/// The options for reading images.
#[derive(Clone, Copy)]
pub struct Reader {
    /// Whether an image that cannot be read is an error.
    strict: bool,
    /// Whether decoded images are kept in the cache folder.
    keep: bool,
}

/// Number of bytes that the images of a set may take in memory, if they are not kept in a file: a
/// quarter of what is available. The rest is for a second set, for the network, and for the
/// system's cache of files.
fn budget() -> u64 {
    memory::available().map_or(USUAL_BUDGET, |bytes| bytes / 4)
}

impl Reader {
    /// Options as the flags give them.
    pub fn new(strict: bool, keep: &KeepArgs) -> Self {
        Reader { strict, keep: !keep.no_cache }
    }

    /// Reads the images without labels, as squares of `shape`. `name` is that of the progress bar.
    /// Fails if no image can be read, or with `strict` if any cannot.
    pub fn images(self, set: &Dataset, square: Square, name: &'static str) -> Result<ImageStore> {
        let store = self.load(square, name, |load| ImageStore::load(set, load))?;
        report(&store);
        Ok(store)
    }

    /// Reads the images with their labels, likewise.
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
            strict: self.strict,
            on_progress: &|done, total| bar.set(done, total),
        };
        let store = store(&load)?;
        bar.finish();
        Ok(store)
    }
}

/// Tells the user where the images come from, what went wrong, and which were left out.
fn report(store: &ImageStore) {
    store.notes.iter().for_each(tell);
    if let Some(kept) = &store.kept {
        let (images, path) = (store.len(), kept.path.display());
        if kept.reused {
            tell(format_args!("images: {images} from the cache ({path})"));
        } else {
            let mib = kept.path.metadata().map_or(0, |stat| stat.size()) >> 20;
            tell(format_args!(
                "images: {images} kept for the next start, {mib} MiB ({path}; see picie cache, --no-cache)"
            ));
        }
    }
    for why in &store.skipped {
        tell(format_args!("left out: {why}"));
    }
    if !store.skipped.is_empty() {
        tell(format_args!("{} images left out, {} used", store.skipped.len(), store.len()));
    }
}
