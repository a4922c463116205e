//! A data set on disk: which files, and what its labels mean.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::account::{self, Account};
use super::files::{self, Item, OnProgress};
use super::labels::Taxonomy;
use super::layouts::{self, Classes, DataLayout};
use crate::base::{Error, Result};

/// The files of some splits of a data set, in a fixed order; nothing is decoded yet.
#[derive(Clone, Debug)]
pub struct Dataset {
    pub layout: &'static DataLayout,
    pub root: PathBuf,
    pub split: String,
    pub items: Vec<Item>,
    /// None for a layout without labels.
    pub taxonomy: Option<Taxonomy>,
    /// What else lies in the folders of the images.
    pub account: Account,
}

impl Dataset {
    /// The paths of all images and label maps.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.items.iter().flat_map(|item| [Some(&*item.image), item.label.as_deref()]).flatten()
    }

    /// Whether the data set has splits.
    pub fn is_split(&self) -> bool {
        !(self.layout.splits)(&self.root).is_empty()
    }

    /// Whether any image has a label map.
    pub fn is_labelled(&self) -> bool {
        self.items.iter().any(|item| item.label.is_some())
    }

    /// Why no image has a label map: where they were looked for, and what lies there instead.
    /// `None`: nobody expects labels here.
    pub fn unlabelled(&self) -> Option<String> {
        if self.taxonomy.is_none() {
            let known = layouts::labelled();
            let text = format!(
                "label maps are known in the layout of {known}, and this is {}",
                self.layout.title
            );
            return self.account.has_maps().then_some(text);
        }
        let looked = |split: &str| {
            let (dir, name) = (self.layout.labels)(&self.root, split.trim())?;
            Some(match account::contents(&dir) {
                Err(e) => format!("{name} is looked for in {}", Error::io(&dir, e)),
                Ok(there) => format!("{}: no {name}, but {there}", dir.display()),
            })
        };
        let looked: Vec<String> = self.split.split(',').filter_map(looked).collect();
        Some(format!("no image of {} has a label map: {}", self.split, looked.join("; ")))
    }
}

/// Lists the images of `split`, one name or several with commas between; a layout without splits
/// ignores it. Where no layout is asked for, the folder is looked at.
///
/// `on_progress` is called only by layouts that read files to choose images, as COCO-Stuff does
/// where there is no curated list.
///
/// Errors: `root` is missing, does not have the layout, holds no image, has no such split or no
/// such classes.
pub fn open(
    root: &Path,
    layout: Option<&'static DataLayout>,
    split: &str,
    classes: Classes,
    on_progress: OnProgress,
) -> Result<Dataset> {
    std::fs::read_dir(root).map_err(|e| Error::io(root, e))?;
    let layout = DataLayout::of(root, layout);
    let taxonomy = layout.taxonomy(root, classes)?;
    let (mut items, mut account) = (Vec::new(), Account::default());
    for split in splits(root, layout, split)? {
        items.extend((layout.list)(root, split, on_progress, &mut account)?);
    }
    beside(root, layout, &mut account)?;
    if items.is_empty() {
        let remedy = format!(
            "give a folder of jpg, png, bmp, webp or tif files, or one with {}",
            layouts::marks()
        );
        let what = format!("no image in this folder{}", account.instead());
        return Err(Error::file(root, what, remedy));
    }
    // Splits may overlap.
    let mut seen = HashSet::new();
    items.retain(|item| seen.insert(item.image.clone()));
    let (root, split) = (root.to_path_buf(), split.to_string());
    Ok(Dataset { layout, root, split, items, taxonomy, account })
}

/// Counts the images in folders beside those of the layout.
fn beside(root: &Path, layout: &DataLayout, account: &mut Account) -> Result<()> {
    if layout.own.is_empty() {
        return Ok(());
    }
    let entries = std::fs::read_dir(root).map_err(|e| Error::io(root, e))?;
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let other = |path: &PathBuf| {
        let name = name(path);
        let own = layout.own.iter().any(|own| own.eq_ignore_ascii_case(&name));
        path.is_dir() && !own && !account::of_a_system(&name)
    };
    for dir in entries.flatten().map(|entry| entry.path()).filter(other) {
        let images = match files::images(&dir, &mut Account::default()) {
            Err(Error::File { .. }) => continue,
            images => images?.len(),
        };
        account.leave(images, format!("images in {}", name(&dir)), "--dataset folder takes all");
    }
    Ok(())
}

/// The splits that are asked for, one of any name where the layout has none.
fn splits<'a>(root: &Path, layout: &DataLayout, asked: &'a str) -> Result<Vec<&'a str>> {
    let known = (layout.splits)(root);
    if known.is_empty() {
        return Ok(vec![asked]);
    }
    let asked: Vec<&str> = asked.split(',').map(str::trim).collect();
    match asked.iter().find(|split| !known.contains(split)) {
        None => Ok(asked),
        Some(unknown) => Err(Error::input(
            format!("there is no split \"{unknown}\" here"),
            format!("choose among {}", known.join(", ")),
        )),
    }
}

/// Some number of classes that [`open`] accepts, for callers that look at no labels.
pub fn any_classes(root: &Path, layout: Option<&'static DataLayout>) -> Classes {
    DataLayout::of(root, layout).any_classes()
}

/// What the labels of a data set are read as; None where it has no labels.
pub fn taxonomy(
    root: &Path,
    layout: Option<&'static DataLayout>,
    classes: Classes,
) -> Result<Option<Taxonomy>> {
    DataLayout::of(root, layout).taxonomy(root, classes)
}
