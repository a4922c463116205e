//! Any folder of images, at any depth, without labels.

use std::path::Path;

use super::DataLayout;
use crate::base::Result;
use crate::data::account::Account;
use crate::data::files::{self, Item};
use crate::data::maps;

pub static LAYOUT: DataLayout = DataLayout {
    name: "folder",
    title: "a plain folder",
    files: "Any folder of images, at any depth, without labels",
    mark: "",
    detect: |_| true,
    splits: |_| vec![],
    list: |root, _, _, account| list(root, account),
    taxonomies: Vec::new,
};

/// Every image below `root` but label maps that lie beside photos, sorted by path.
fn list(root: &Path, account: &mut Account) -> Result<Vec<Item>> {
    let id = |path: &Path| {
        path.strip_prefix(root).unwrap_or(path).with_extension("").to_string_lossy().into_owned()
    };
    let item = |image: std::path::PathBuf| Item { id: id(&image), image, label: None };
    let images = maps::leave_out(root, files::images(root, account)?, account)?;
    Ok(images.into_iter().map(item).collect())
}
