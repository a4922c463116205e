//! Taxonomies: what class a value in a label map is.

use std::ops::Range;
use std::path::Path;

use super::decode::{self, LabelMap};
use crate::base::{Error, Result};

/// The class of pixels that count for nothing.
pub const IGNORE: u8 = 255;
/// Marks a value that no label map of the data set may hold.
const UNKNOWN: u8 = 254;

/// The classes of a data set, and how its label maps spell them.
#[derive(Clone, Debug)]
pub struct Taxonomy {
    /// The data set and the value of `--classes`, as in "coco-stuff 27".
    pub name: &'static str,
    /// One line on the classes, for the help of `--classes`.
    pub about: &'static str,
    /// Class names; their index is the class.
    pub classes: &'static [&'static str],
    /// Named ranges of classes that are also scored on their own (COCO-Stuff 27: things, stuff).
    pub parts: Vec<(&'static str, Range<usize>)>,
    /// Colours and the value that each stands for, where label maps may be pictures.
    pub colours: &'static [([u8; 3], u8)],
    /// The class of each value, [`IGNORE`] or [`UNKNOWN`].
    pub(super) lut: [u8; 256],
}

impl Taxonomy {
    /// A table with the class, or [`IGNORE`], of each value in `ids`. The value 255 is ignored in
    /// every data set, and any other one is an error where it occurs. There are no parts and no
    /// colours.
    pub fn new(
        name: &'static str,
        about: &'static str,
        classes: &'static [&'static str],
        ids: impl IntoIterator<Item = (u8, u8)>,
    ) -> Self {
        let mut lut = [UNKNOWN; 256];
        lut[255] = IGNORE;
        ids.into_iter().for_each(|(value, class)| lut[usize::from(value)] = class);
        Taxonomy { name, about, classes, parts: vec![], colours: &[], lut }
    }

    /// The value of `--classes` that chooses this table.
    pub fn flag(&self) -> &'static str {
        self.name.rsplit(' ').next().unwrap_or_default()
    }

    /// Reads a label map as classes.
    pub fn read(&self, file: &Path) -> Result<LabelMap> {
        let mut map = decode::coloured_label(file, self.colours)?;
        self.classify(file, &mut map.ids)?;
        Ok(map)
    }

    /// Turns the values of a label map into classes, in place.
    ///
    /// Errors: a value that the data set does not have; `file` and the value are named.
    pub fn classify(&self, file: &Path, ids: &mut [u8]) -> Result<()> {
        for id in ids {
            match self.lut[usize::from(*id)] {
                UNKNOWN => {
                    let what = format!(
                        "the label map holds the value {id}, which {} does not know",
                        self.name
                    );
                    return Err(Error::file(file, what, "check --dataset, or copy the file again"));
                }
                class => *id = class,
            }
        }
        Ok(())
    }
}
