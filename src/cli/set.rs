//! The images of `--data`, as commands with a trained network read them.

use crate::base::Result;
use crate::cli::args::SetArgs;
use crate::cli::plan::{FileBar, cache, check_limit};
use crate::cli::train::{list_skipped, loading};
use crate::data::{self, Classes, Dataset, EvalStore, Fit, ImageStore};

impl SetArgs {
    /// The files; nothing is decoded yet.
    pub fn open(&self, classes: Classes) -> Result<Dataset> {
        check_limit(self.limit)?;
        let bar = FileBar::new("select");
        let mut set = data::open(&self.data, self.dataset, &self.split, classes, &|d, t| bar.set(d, t))?;
        bar.finish();
        set.items.truncate(self.limit.unwrap_or(usize::MAX));
        Ok(set)
    }

    /// The images; labels are not looked at.
    pub fn images(&self, size: usize, fit: Fit) -> Result<ImageStore> {
        let set = self.open(data::any_classes(&self.data, self.dataset))?;
        let bar = FileBar::new("read images");
        let store = ImageStore::load(&set, &loading(size, fit, self.strict, &cache(), &|d, t| bar.set(d, t)))?;
        bar.finish();
        list_skipped(&store);
        Ok(store)
    }

    /// The images with their labels.
    pub fn labelled(&self, classes: Classes, size: usize, fit: Fit) -> Result<EvalStore> {
        let set = self.open(classes)?;
        let bar = FileBar::new("read images");
        let store = EvalStore::load(&set, &loading(size, fit, self.strict, &cache(), &|d, t| bar.set(d, t)))?;
        bar.finish();
        list_skipped(&store.images);
        Ok(store)
    }
}
