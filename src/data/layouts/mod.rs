//! The layouts of data sets that are known: how files lie on disk, which splits there are, and how
//! label maps spell classes.
//!
//! A new layout is a file in this folder with a `LAYOUT`, its `mod` line below, and its line in
//! [`LAYOUTS`]. The values of `--dataset` and `--classes`, their help, detection and the errors
//! that list layouts all follow from the table.

mod ade20k;
mod cityscapes;
mod coco_stuff;
mod every_image;
mod folder;
mod images_labels;
mod potsdam;
mod voc;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::account::Account;
use super::classes;
use super::files::{Item, OnProgress};
use super::labels::Taxonomy;
use crate::base::{Error, Result};
pub use coco_stuff::CURATED;

/// Every layout. Detection takes the first that fits, so the plain folder, which always fits, is
/// the last that is detected.
pub static LAYOUTS: &[&DataLayout] = &[
    &coco_stuff::LAYOUT,
    &cityscapes::LAYOUT,
    &potsdam::LAYOUT,
    &voc::LAYOUT,
    &ade20k::LAYOUT,
    &images_labels::LAYOUT,
    &folder::LAYOUT,
    &every_image::LAYOUT,
];

/// Finds the classes of a folder; none where it has no label maps.
pub type FindClasses = fn(&Path) -> Result<Option<Taxonomy>>;

/// One way in which a data set lies on disk.
pub struct DataLayout {
    /// The value of `--dataset`, and what `run.json` calls the layout.
    pub name: &'static str,
    /// The name of the data set in errors.
    pub title: &'static str,
    /// Where images and label maps lie, in one line for the help of `--dataset`.
    pub files: &'static str,
    /// The folders that `detect` looks for, in words; empty for the layout that fits any folder.
    pub mark: &'static str,
    /// Whether a folder has this layout.
    pub detect: fn(&Path) -> bool,
    /// The splits that a folder of this layout has; empty where a data set is not split at all.
    pub splits: fn(&Path) -> Vec<&'static str>,
    /// Lists the items of one of the splits, in a fixed order. An item has a label where its label
    /// map is there. The progress callback is for layouts that have to read files to choose items;
    /// the account gets what else lies there.
    pub list: fn(&Path, &str, OnProgress, &mut Account) -> Result<Vec<Item>>,
    /// The folders at the top that belong to the layout. Images in others are left out and counted;
    /// empty where all belong to it.
    pub own: &'static [&'static str],
    /// The folder of a split's label maps, and how they are called; `None` where there are no
    /// labels.
    pub labels: fn(&Path, &str) -> Option<(PathBuf, &'static str)>,
    /// Builds every table of classes that label maps of this layout can be read by. Empty where
    /// there are no labels.
    pub taxonomies: fn() -> Vec<Taxonomy>,
    /// Finds the classes of a folder whose label maps may have any, where no file names them.
    pub find_classes: Option<FindClasses>,
    /// Whether the paper has numbers for it.
    pub paper: bool,
}

impl DataLayout {
    /// The layout of this name, if there is one.
    pub fn named(name: &str) -> Option<&'static DataLayout> {
        LAYOUTS.iter().find(|layout| layout.name == name).copied()
    }

    /// The layout that was asked for, or else the one that the folder `root` seems to have.
    pub fn of(root: &Path, asked: Option<&'static DataLayout>) -> &'static DataLayout {
        let detected = || LAYOUTS.iter().find(|layout| (layout.detect)(root));
        asked.unwrap_or_else(|| detected().expect("the plain folder fits"))
    }

    /// Whether folders of this layout may have label maps.
    pub fn has_labels(&self) -> bool {
        self.find_classes.is_some() || !(self.taxonomies)().is_empty()
    }

    /// The classes of the folder `root`: those that its user names in a file, else the table of
    /// that many classes; None for a layout without labels, which has no use for any other number
    /// of classes than the usual one.
    ///
    /// Errors: the layout has no such table; the file of classes cannot be read.
    pub fn taxonomy(&self, root: &Path, classes: Classes) -> Result<Option<Taxonomy>> {
        if self.has_labels()
            && let Some(own) = classes::read(root)?
        {
            return Ok(Some(own));
        }
        if let Some(find) = self.find_classes {
            return find(root);
        }
        let mut known = (self.taxonomies)();
        // Where there is one table, nobody need say which.
        if known.len() == 1 && classes == Classes::default() {
            return Ok(known.pop());
        }
        if let Some(at) = known.iter().position(|table| table.classes.len() == classes.0) {
            return Ok(Some(known.swap_remove(at)));
        }
        if known.is_empty() && classes == Classes::default() {
            return Ok(None);
        }
        let mut numbers: Vec<Classes> = known.iter().map(Classes::of).collect();
        if numbers.is_empty() {
            numbers.push(Classes::default());
        }
        let flags: Vec<String> = numbers.iter().map(|n| format!("--classes {n}")).collect();
        Err(Error::input(
            format!("{} has no table of {classes} classes", self.title),
            format!("use {} for this data set", flags.join(" or ")),
        ))
    }

    /// Some number of classes that [`DataLayout::taxonomy`] accepts, for callers that look at no
    /// labels.
    pub fn any_classes(&self) -> Classes {
        (self.taxonomies)().first().map_or_else(Classes::default, Classes::of)
    }
}

/// The titles of the layouts that have label maps, as a sentence lists them.
pub fn labelled() -> String {
    listing(LAYOUTS.iter().filter(|layout| layout.has_labels()).map(|l| l.title.to_string()))
}

/// What to look for in a folder of each layout that is not plain, as a sentence lists it.
pub fn marks() -> String {
    let marked = LAYOUTS.iter().filter(|layout| !layout.mark.is_empty());
    listing(marked.map(|layout| format!("{} ({})", layout.mark, layout.title)))
}

/// "a, b or c".
fn listing(words: impl Iterator<Item = String>) -> String {
    let mut words: Vec<String> = words.collect();
    let last = words.pop().unwrap_or_default();
    if words.is_empty() { last } else { format!("{} or {last}", words.join(", ")) }
}

// NOTE: a layout is told from others by its name: pointers to statics need not differ.
impl PartialEq for DataLayout {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for DataLayout {}

impl fmt::Debug for DataLayout {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl ValueEnum for &'static DataLayout {
    fn value_variants<'a>() -> &'a [Self] {
        LAYOUTS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name).help(self.files))
    }
}

impl Serialize for DataLayout {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_str(self.name)
    }
}

impl<'de> Deserialize<'de> for &'static DataLayout {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        let unknown = || serde::de::Error::custom(format!("there is no data set layout {name:?}"));
        DataLayout::named(&name).ok_or_else(unknown)
    }
}

/// A table of classes by its number of classes, the value of `--classes`. Not every data set has
/// each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Classes(pub usize);

impl Classes {
    fn of(table: &Taxonomy) -> Self {
        Classes(table.classes.len())
    }
}

impl Default for Classes {
    /// PiCIE's numbers of classes, of COCO-Stuff and of Cityscapes.
    fn default() -> Self {
        Classes(27)
    }
}

impl fmt::Display for Classes {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Classes> for String {
    fn from(classes: Classes) -> Self {
        classes.to_string()
    }
}

impl TryFrom<String> for Classes {
    type Error = String;

    /// Reads a number, with or without the word before it that earlier versions wrote ("all27").
    fn try_from(text: String) -> std::result::Result<Self, String> {
        let number = text.trim_start_matches(char::is_alphabetic).parse();
        number.map(Classes).map_err(|_| format!("{text:?} is no number of classes"))
    }
}

impl ValueEnum for Classes {
    fn value_variants<'a>() -> &'a [Self] {
        static ALL: LazyLock<Vec<Classes>> = LazyLock::new(|| {
            let mut all: Vec<Classes> = tables().iter().map(Classes::of).collect();
            all.sort_by(|a, b| b.cmp(a));
            all.dedup();
            all
        });
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let tables: Vec<Taxonomy> = tables().into_iter().filter(|t| Self::of(t) == *self).collect();
        let about: Vec<&str> = tables.iter().map(|table| table.about).collect();
        Some(PossibleValue::new(tables.first()?.flag().to_string()).help(about.join("; ")))
    }
}

/// The tables of all layouts.
fn tables() -> Vec<Taxonomy> {
    LAYOUTS.iter().flat_map(|layout| (layout.taxonomies)()).collect()
}
