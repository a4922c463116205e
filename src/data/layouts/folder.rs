//! Any folder of images, at any depth, without labels.

use std::path::Path;

use super::DataLayout;
use crate::base::Result;
use crate::data::files::{self, Item};

pub static LAYOUT: DataLayout = DataLayout {
    name: "folder",
    title: "a plain folder",
    files: "Any folder of images, at any depth, without labels",
    mark: "",
    detect: |_| true,
    splits: |_| vec![],
    list: |root, _, _| list(root),
    taxonomies: Vec::new,
};

/// Every image below `root`, sorted by path.
fn list(root: &Path) -> Result<Vec<Item>> {
    let id = |path: &Path| {
        path.strip_prefix(root).unwrap_or(path).with_extension("").to_string_lossy().into_owned()
    };
    let item = |image: std::path::PathBuf| Item { id: id(&image), image, label: None };
    Ok(files::images(root)?.into_iter().map(item).collect())
}
