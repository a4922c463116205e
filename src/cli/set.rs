//! The images of `--data`, for the commands that evaluate.

use crate::base::Result;
use crate::base::say::warn;
use crate::cli::args::{SetArgs, TurnArgs};
use crate::cli::bar::FileBar;
use crate::cli::limits::check_limit;
use crate::cli::read::{Reader, account};
use crate::data::{self, Classes, Dataset, ImageStore, PictureSet, Square};

/// The name of the progress bar.
const BAR: &str = "read images";

impl SetArgs {
    /// The same images, turned as those were that networks were trained on; `exif` of each.
    pub fn turned(&self, exif: impl IntoIterator<Item = bool>) -> Self {
        let turn = exif.into_iter().fold(self.turn, TurnArgs::of);
        SetArgs { turn, ..self.clone() }
    }

    /// Lists the files of the data set, those beyond `--limit` too; nothing is decoded yet.
    pub fn list(&self, classes: Classes) -> Result<Dataset> {
        check_limit(self.limit)?;
        let bar = FileBar::new("select");
        let set =
            data::open(&self.data, self.dataset, &self.split, classes, &|d, t| bar.set(d, t))?;
        bar.finish();
        account(&set);
        Ok(set)
    }

    /// As [`list`](Self::list), for a command that looks at no labels.
    pub fn list_plain(&self) -> Result<Dataset> {
        self.list(data::any_classes(&self.data, self.dataset))
    }

    /// The set without what `--limit` leaves out.
    pub fn limited(&self, mut set: Dataset) -> Dataset {
        set.items.truncate(self.limit.unwrap_or(usize::MAX));
        set
    }

    /// Reads the images of a set; labels are not looked at.
    pub fn images(&self, set: &Dataset, square: Square) -> Result<ImageStore> {
        self.reader().images(set, square, BAR)
    }

    /// Reads the images, with labels where any of them has some. `classes` None stands for the
    /// usual number of classes. With `asked`, a set without labels is an error.
    pub fn pictures(
        &self,
        classes: Option<Classes>,
        asked: bool,
        square: Square,
    ) -> Result<PictureSet> {
        let set = self.limited(self.list(classes.unwrap_or_default())?);
        if !asked && let Some(why) = set.unlabelled().filter(|_| !set.is_labelled()) {
            warn(format_args!("measured without labels: {why}"));
        }
        self.read(&set, asked || set.is_labelled(), square)
    }

    /// Reads the images of a set, with their labels or without.
    pub fn read(&self, set: &Dataset, labelled: bool, square: Square) -> Result<PictureSet> {
        Ok(match labelled {
            true => PictureSet::Labelled(self.reader().labelled(set, square, BAR)?),
            false => PictureSet::Plain(self.images(set, square)?),
        })
    }

    fn reader(&self) -> Reader {
        Reader::new(self.strict, &self.keep, !self.turn.no_exif)
    }
}
