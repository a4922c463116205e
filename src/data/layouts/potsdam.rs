//! The Potsdam layout: patches of the ortho tiles in `imgs/*.{png,jpg,tif}` and label maps of the
//! same stems in `gt/*.png`, colours as published or grey ids 0..=5. The published preprocessing
//! (IIC) cuts the tiles to patches of 200² at half resolution.
//!
//! A split is a list of stems `{split}.txt` beside `imgs`, or a folder `imgs/{split}`; where there
//! is neither of any split, each split is all patches, as IIC trains and evaluates.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::DataLayout;
use crate::base::{Error, Result};
use crate::data::account::Account;
use crate::data::files::{Item, stem};
use crate::data::labels::{IGNORE, Taxonomy};
use crate::data::maps;

pub static LAYOUT: DataLayout = DataLayout {
    name: "potsdam",
    title: "Potsdam",
    files: "imgs/*, gt/*.png: patches of ISPRS Potsdam",
    mark: "imgs and gt",
    detect: |root| root.join("imgs").is_dir() && root.join("gt").is_dir(),
    splits,
    list: |root, split, _, account| list(root, split, account),
    own: &["imgs", "gt"],
    labels: |root, split| Some((labels_of(root, split), "IMAGE.png")),
    taxonomies,
    find_classes: None,
    paper: true,
};

const SPLITS: [&str; 3] = ["train", "val", "test"];

/// The splits that have a list or a folder; all where none has.
fn splits(root: &Path) -> Vec<&'static str> {
    let made =
        |split: &&str| list_of(root, split).is_file() || root.join("imgs").join(split).is_dir();
    let known: Vec<&str> = SPLITS.into_iter().filter(made).collect();
    if known.is_empty() { SPLITS.to_vec() } else { known }
}

/// The names in a list.
fn names(list: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(list).map_err(|e| Error::io(list, e))?;
    Ok(text.lines().map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect())
}

/// The folder of a split's label maps: one of the split's name where it is there.
fn labels_of(root: &Path, split: &str) -> PathBuf {
    let (all, own) = (root.join("gt"), root.join("gt").join(split));
    if own.is_dir() { own } else { all }
}

/// The file that lists the stems of a split.
fn list_of(root: &Path, split: &str) -> PathBuf {
    root.join(format!("{split}.txt"))
}

/// The patches of one split, sorted by path or in the list's order.
fn list(root: &Path, split: &str, account: &mut Account) -> Result<Vec<Item>> {
    let (imgs, gt, listed) = (root.join("imgs"), root.join("gt"), list_of(root, split));
    let item = |image: PathBuf| {
        let id = stem(&image);
        let name = format!("{id}.png");
        let label =
            [gt.join(split).join(&name), gt.join(&name)].into_iter().find(|path| path.is_file());
        Item { id, image, label }
    };
    let items: Vec<Item> = if listed.is_file() {
        let by_stem: BTreeMap<String, PathBuf> =
            maps::photos(&imgs, account)?.into_iter().map(|p| (stem(&p), p)).collect();
        // Names may end as the files do.
        let known = |name: &String| {
            by_stem.get_key_value(name).or_else(|| by_stem.get_key_value(&stem(Path::new(name))))
        };
        let mut on_lists = BTreeSet::new();
        for list in SPLITS.map(|split| list_of(root, split)).iter().filter(|list| list.is_file()) {
            on_lists.extend(names(list)?.iter().filter_map(known).map(|(stem, _)| stem.clone()));
        }
        account.leave(by_stem.len() - on_lists.len(), "patches on no list", "add them to one");
        let find = |name: &String| {
            known(name).map(|(_, image)| item(image.clone())).ok_or_else(|| {
                Error::file(
                    &listed,
                    format!("no image {name:?} in {}", imgs.display()),
                    "copy it, or drop the line",
                )
            })
        };
        names(&listed)?.iter().map(find).collect::<Result<_>>()?
    } else {
        let dir = Some(imgs.join(split)).filter(|dir| dir.is_dir()).unwrap_or(imgs);
        maps::photos(&dir, account)?.into_iter().map(item).collect()
    };
    match items.is_empty() {
        true => Err(Error::file(
            root,
            format!("no image in split \"{split}\"{}", account.instead()),
            "put the patches into imgs",
        )),
        false => Ok(items),
    }
}

/// Ids 0..=5, 255 ignored; with 3 classes in pairs.
fn taxonomies() -> Vec<Taxonomy> {
    let table = |name, about, classes: &[&str], of: &[u8; 6]| Taxonomy {
        colours: COLOURS.to_vec(),
        ..Taxonomy::new(name, about, classes, (0..).zip(of.iter().copied()))
    };
    vec![
        table("potsdam 3", "Potsdam's 6 classes in pairs", &THREE, &SIX_TO_THREE),
        table("potsdam 6", "Potsdam's 6 classes", &SIX, &[0, 1, 2, 3, 4, 5]),
    ]
}

/// Potsdam's classes and their colours in the published labels, in IIC's order. Black are the
/// boundaries of the label maps "no boundary", which are not scored.
const SIX: [&str; 6] = ["road", "building", "low vegetation", "tree", "car", "clutter"];
const COLOURS: [([u8; 3], u8); 7] = [
    ([255, 255, 255], 0),
    ([0, 0, 255], 1),
    ([0, 255, 255], 2),
    ([0, 255, 0], 3),
    ([255, 255, 0], 4),
    ([255, 0, 0], 5),
    ([0, 0, 0], IGNORE),
];

/// IIC's three classes, and which of them each of the six is.
const THREE: [&str; 3] = ["roads and cars", "buildings and clutter", "vegetation and trees"];
const SIX_TO_THREE: [u8; 6] = [0, 1, 2, 2, 0, 1];
