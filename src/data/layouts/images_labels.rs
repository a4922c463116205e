//! Own labels: a folder of images and a folder of label maps beside it, whose files have the same
//! names, at any depth: `images/a/1.jpg` and `labels/a/1.png`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::DataLayout;
use crate::base::{Error, Result};
use crate::data::account::Account;
use crate::data::classes;
use crate::data::files::{self, Item, stem};

pub static LAYOUT: DataLayout = DataLayout {
    name: "images-labels",
    title: "a folder of images and one of label maps",
    files: "images/**, labels/** (or masks, annotations) of the same names, classes.txt or classes.json",
    mark: "images and labels",
    detect: |root| {
        let maps = folder(root, &MAPS).map(|dir| maps(&dir)).unwrap_or_default();
        folder(root, &IMAGES).is_some() && !maps.is_empty()
    },
    splits: |root| match [&IMAGES[..], &MAPS].map(|names| folder(root, names)) {
        [Some(images), Some(maps)] => splits(&images, &maps),
        _ => Vec::new(),
    },
    list,
    own: &["images", "imgs", "img", "labels", "masks", "annotations", "label", "mask"],
    labels: |root, split| {
        let dir = folder(root, &MAPS).unwrap_or_else(|| root.join(MAPS[0]));
        Some((of_split(&dir, split).unwrap_or(dir), "IMAGE.png"))
    },
    taxonomies: Vec::new,
    find_classes: Some(|root| {
        let dir = folder(root, &MAPS);
        classes::found(&dir.map(|dir| maps(&dir)).unwrap_or_default())
    }),
    paper: false,
};

/// The names of the two folders, the usual ones first.
const IMAGES: [&str; 3] = ["images", "imgs", "img"];
const MAPS: [&str; 5] = ["labels", "masks", "annotations", "label", "mask"];

/// What may stand behind an image's name in that of its label map.
const TAILS: [&str; 7] = ["", "_mask", "_label", "_labels", "_seg", "_gt", "-mask"];

/// The splits, and the folders that they may be.
const SPLITS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("val", &["val", "validation", "valid"]),
    ("test", &["test", "testing"]),
];

/// The first of these folders that is there, in capitals or not.
fn folder(root: &Path, names: &[&str]) -> Option<PathBuf> {
    let there = |name: &str| -> Option<PathBuf> {
        let plain = root.join(name);
        if plain.is_dir() {
            return Some(plain);
        }
        let entries = std::fs::read_dir(root).ok()?.flatten();
        let mut same: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().eq_ignore_ascii_case(name))
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect();
        same.sort();
        same.into_iter().next()
    };
    names.iter().find_map(|name| there(name))
}

/// The folder of a split, if there is one.
fn of_split(dir: &Path, split: &str) -> Option<PathBuf> {
    let (_, names) = SPLITS.iter().find(|(name, _)| *name == split)?;
    folder(dir, names)
}

/// The splits of two folders that are divided in the same way; none unless both have one to train
/// on and one to evaluate on.
fn splits(images: &Path, maps: &Path) -> Vec<&'static str> {
    let both = |split: &str| [images, maps].iter().all(|dir| of_split(dir, split).is_some());
    let all: Vec<&str> =
        SPLITS.iter().map(|(split, _)| *split).filter(|split| both(split)).collect();
    if ["train", "val"].iter().all(|split| all.contains(split)) { all } else { Vec::new() }
}

/// The label maps below a folder.
fn maps(dir: &Path) -> Vec<PathBuf> {
    let images = files::images(dir, &mut Account::default()).unwrap_or_default();
    let png = |path: &PathBuf| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"));
    images.into_iter().filter(png).collect()
}

fn list(
    root: &Path,
    split: &str,
    _: files::OnProgress,
    account: &mut Account,
) -> Result<Vec<Item>> {
    let lost = |names: &[&str]| {
        let what = format!("no folder {}", names.join(", "));
        Error::file(root, what, "put images into images/ and label maps into labels/")
    };
    let images = folder(root, &IMAGES).ok_or_else(|| lost(&IMAGES))?;
    let maps = folder(root, &MAPS).ok_or_else(|| lost(&MAPS))?;
    let divided = !splits(&images, &maps).is_empty();
    let part = |dir: PathBuf| of_split(&dir, split).filter(|_| divided).unwrap_or(dir);
    pairs(&part(images), &part(maps), account)
}

/// The images below a folder with the label maps below another: that of the same path, or of the
/// same name where no other has it; either may have a usual word behind it.
pub fn pairs(images: &Path, labels: &Path, account: &mut Account) -> Result<Vec<Item>> {
    let below = |dir: &Path, path: &Path| {
        path.strip_prefix(dir).unwrap_or(path).with_extension("").to_string_lossy().into_owned()
    };
    let (mut paths, mut names) = (HashMap::new(), HashMap::new());
    for map in maps(labels) {
        let of_name = names.entry(stem(&map)).or_insert_with(|| Some(map.clone()));
        if of_name.as_ref() != Some(&map) {
            *of_name = None;
        }
        paths.insert(below(labels, &map), map);
    }
    let mut used = 0;
    let mut items = Vec::new();
    for image in files::images(images, account)? {
        let (path, name) = (below(images, &image), stem(&image));
        let of_path = |tail: &&str| paths.get(&format!("{path}{tail}")).cloned();
        let of_name = |tail: &&str| names.get(&format!("{name}{tail}")).cloned().flatten();
        let label = TAILS.iter().find_map(of_path).or_else(|| TAILS.iter().find_map(of_name));
        used += usize::from(label.is_some());
        items.push(Item { id: path, image, label });
    }
    let without = items.len() - used;
    account.pass(if used > 0 { without } else { 0 }, "images without a label map");
    account.leave(
        paths.len().saturating_sub(used),
        "label maps without an image",
        "name them as the images are",
    );
    if items.is_empty() {
        let what = format!("no image in this folder{}", account.instead());
        return Err(Error::file(images, what, "put the images there"));
    }
    Ok(items)
}
