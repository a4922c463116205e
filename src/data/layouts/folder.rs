//! Any folder of images, at any depth, without labels.

use std::path::{Path, PathBuf};

use super::DataLayout;
use crate::data::files::Item;
use crate::data::maps;

pub static LAYOUT: DataLayout = DataLayout {
    name: "folder",
    title: "a plain folder",
    files: "Any folder of images, at any depth, without labels",
    mark: "",
    detect: |_| true,
    splits: |_| vec![],
    list: |root, _, _, account| Ok(items(root, maps::photos(root, account)?)),
    own: &[],
    labels: |_, _| None,
    taxonomies: Vec::new,
    find_classes: None,
    paper: false,
};

/// The items of images below `root`, which are called by their paths.
pub fn items(root: &Path, images: Vec<PathBuf>) -> Vec<Item> {
    let id = |path: &Path| {
        path.strip_prefix(root).unwrap_or(path).with_extension("").to_string_lossy().into_owned()
    };
    images.into_iter().map(|image| Item { id: id(&image), image, label: None }).collect()
}
