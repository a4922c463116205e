//! Taxonomies: what class a value in a label map is.

use std::ops::Range;
use std::path::Path;

use super::decode::{self, LabelMap};
use super::palette::{Colour, palette};
use crate::base::{Error, Result};

/// The class of pixels that count for nothing.
pub const IGNORE: u8 = 255;
/// Marks a value that no label map of the data set may hold.
const UNKNOWN: u8 = 254;
/// The most classes of a data set.
pub(super) const MOST: usize = 253;

/// The classes of a data set, and how its label maps spell them.
#[derive(Clone, Debug)]
pub struct Taxonomy {
    /// The data set and the value of `--classes`, as in "coco-stuff 27".
    pub name: String,
    /// One line on the classes, for the help of `--classes`.
    pub about: &'static str,
    /// Class names; their index is the class.
    pub classes: Vec<String>,
    /// Named ranges of classes that are also scored on their own (COCO-Stuff 27: things, stuff).
    pub parts: Vec<(&'static str, Range<usize>)>,
    /// Colours and the value that each stands for, where label maps may be pictures.
    pub colours: Vec<(Colour, u8)>,
    /// Whether a user made these classes; then the palette of a label map whose colours are not
    /// among `colours` means nothing, and its indices are values.
    pub own: bool,
    /// The colours of classes in pictures, where the data set says some. Empty: none.
    pub(super) shown: Vec<Option<Colour>>,
    /// The class of each value, [`IGNORE`] or [`UNKNOWN`].
    pub(super) lut: [u8; 256],
}

impl Taxonomy {
    /// A table with the class, or [`IGNORE`], of each value in `ids`. The value 255 is ignored in
    /// every data set, and any other one is an error where it occurs. There are no parts and no
    /// colours.
    pub fn new(
        name: &str,
        about: &'static str,
        classes: &[&str],
        ids: impl IntoIterator<Item = (u8, u8)>,
    ) -> Self {
        let mut lut = [UNKNOWN; 256];
        lut[255] = IGNORE;
        ids.into_iter().for_each(|(value, class)| lut[usize::from(value)] = class);
        let (name, classes) = (name.into(), classes.iter().map(|name| name.to_string()).collect());
        let (parts, colours, shown) = (vec![], vec![], vec![]);
        Taxonomy { name, about, classes, parts, colours, own: false, shown, lut }
    }

    /// The colour of each class in pictures: its own, or the next that none has.
    pub fn palette(&self) -> Vec<Colour> {
        let own: Vec<Colour> = self.shown.iter().flatten().copied().collect();
        let mut free = palette(self.classes.len() + own.len()).into_iter();
        let mut next = || free.find(|colour| !own.contains(colour)).unwrap_or_default();
        let own = |class: usize| self.shown.get(class).copied().flatten();
        (0..self.classes.len()).map(|class| own(class).unwrap_or_else(&mut next)).collect()
    }

    /// The value of `--classes` that chooses this table.
    pub fn flag(&self) -> &str {
        self.name.rsplit(' ').next().unwrap_or_default()
    }

    /// Reads a label map as classes.
    pub fn read(&self, file: &Path) -> Result<LabelMap> {
        let mut map = decode::coloured_label(file, &self.colours, self.own)?;
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
                    let remedy = match self.own {
                        true => "add it there, or copy the file again",
                        false => {
                            "check --dataset, name your own classes in classes.txt, or copy the file again"
                        }
                    };
                    return Err(Error::file(file, what, remedy));
                }
                class => *id = class,
            }
        }
        Ok(())
    }
}
