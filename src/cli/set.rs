//! The images of `--data`, as the commands that evaluate read them.

use crate::base::{Result, tell};
use crate::cli::args::SetArgs;
use crate::cli::plan::{FileBar, cache, check_limit};
use crate::cli::train::{list_skipped, loading};
use crate::data::{self, Classes, Dataset, EvalStore, Fit, ImageStore, PictureSet};

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
        self.load_images(&self.open(data::any_classes(&self.data, self.dataset))?, size, fit)
    }

    /// The images with their labels.
    pub fn labelled(&self, classes: Classes, size: usize, fit: Fit) -> Result<EvalStore> {
        self.load_labelled(&self.open(classes)?, size, fit)
    }

    /// The images, with labels where any of them has some. `classes` None: the default ones. `asked`: to have none is an error.
    pub fn pictures(&self, classes: Option<Classes>, asked: bool, size: usize, fit: Fit) -> Result<PictureSet> {
        let set = self.open(classes.unwrap_or_default())?;
        if asked || set.items.iter().any(|item| item.label.is_some()) {
            return Ok(PictureSet::Labelled(Box::new(self.load_labelled(&set, size, fit)?)));
        }
        if set.taxonomy.is_some() {
            tell(format_args!("no image of the split {} has a label map: measured without labels", set.split));
        }
        Ok(PictureSet::Plain(self.load_images(&set, size, fit)?))
    }

    fn load_images(&self, set: &Dataset, size: usize, fit: Fit) -> Result<ImageStore> {
        let bar = FileBar::new("read images");
        let store = ImageStore::load(set, &loading(size, fit, self.strict, &cache(), &|d, t| bar.set(d, t)))?;
        bar.finish();
        list_skipped(&store);
        Ok(store)
    }

    fn load_labelled(&self, set: &Dataset, size: usize, fit: Fit) -> Result<EvalStore> {
        let bar = FileBar::new("read images");
        let store = EvalStore::load(set, &loading(size, fit, self.strict, &cache(), &|d, t| bar.set(d, t)))?;
        bar.finish();
        list_skipped(&store.images);
        Ok(store)
    }
}
