//! The images of `--data`, for the commands that evaluate.

use crate::base::Result;
use crate::base::say::warn;
use crate::cli::args::SetArgs;
use crate::cli::bar::FileBar;
use crate::cli::limits::check_limit;
use crate::cli::read::{Reader, account};
use crate::data::{self, Classes, Dataset, EvalStore, ImageStore, PictureSet, Square};

/// The name of the progress bar.
const BAR: &str = "read images";

impl SetArgs {
    /// Lists the files of the data set; nothing is decoded yet.
    pub fn open(&self, classes: Classes) -> Result<Dataset> {
        check_limit(self.limit)?;
        let bar = FileBar::new("select");
        let mut set =
            data::open(&self.data, self.dataset, &self.split, classes, &|d, t| bar.set(d, t))?;
        bar.finish();
        account(&set);
        set.items.truncate(self.limit.unwrap_or(usize::MAX));
        Ok(set)
    }

    /// Lists the files of the data set for a command that looks at no labels.
    pub fn open_plain(&self) -> Result<Dataset> {
        self.open(data::any_classes(&self.data, self.dataset))
    }

    /// Reads the images of a set that was [opened](Self::open); labels are not looked at.
    pub fn images(&self, set: &Dataset, square: Square) -> Result<ImageStore> {
        self.reader().images(set, square, BAR)
    }

    /// Reads the images of a set with their labels.
    pub fn labelled(&self, set: &Dataset, square: Square) -> Result<EvalStore> {
        self.reader().labelled(set, square, BAR)
    }

    /// Reads the images, with labels where any of them has some. `classes` None stands for the
    /// usual number of classes. With `asked`, a set without labels is an error.
    pub fn pictures(
        &self,
        classes: Option<Classes>,
        asked: bool,
        square: Square,
    ) -> Result<PictureSet> {
        let set = self.open(classes.unwrap_or_default())?;
        if asked || set.items.iter().any(|item| item.label.is_some()) {
            return Ok(PictureSet::Labelled(self.labelled(&set, square)?));
        }
        if set.taxonomy.is_some() {
            warn(format_args!(
                "no image of the split {} has a label map: measured without labels",
                set.split
            ));
        }
        Ok(PictureSet::Plain(self.images(&set, square)?))
    }

    fn reader(&self) -> Reader {
        Reader::new(self.strict, &self.keep, !self.turn.no_exif)
    }
}
