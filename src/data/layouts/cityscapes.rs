//! The Cityscapes layout: `leftImg8bit/{split}/{city}/{id}_leftImg8bit.png` and, in `gtFine` or
//! `annotations/gtFine`, `{split}/{city}/{id}_gtFine_labelIds.png`.
//!
//! PiCIE trains on test,train_extra and evaluates on train,val; later work trains on train and
//! evaluates on val.

use std::path::{Path, PathBuf};

use super::DataLayout;
use crate::base::{Error, Result};
use crate::data::account::Account;
use crate::data::files::{self, Item, stem};
use crate::data::labels::{IGNORE, Taxonomy};

pub static LAYOUT: DataLayout = DataLayout {
    name: "cityscapes",
    title: "Cityscapes",
    files: "leftImg8bit/{split}/{city}/*.png, gtFine/{split}/{city}/*_labelIds.png",
    mark: "leftImg8bit",
    detect: |root| root.join("leftImg8bit").is_dir(),
    splits: |_| vec!["train", "val", "test", "train_extra"],
    list: |root, split, _, account| list(root, split, account),
    own: &["leftImg8bit", "gtFine", "gtCoarse", "annotations"],
    labels: |root, split| Some((labels_of(root, split), "CITY/IMAGE_gtFine_labelIds.png")),
    taxonomies,
    find_classes: None,
    paper: true,
};

/// The trees of label maps.
const LABELS: [&str; 2] = ["gtFine", "annotations/gtFine"];

/// The folder of a split's label maps: the first that is there.
fn labels_of(root: &Path, split: &str) -> PathBuf {
    let [usual, other] = LABELS.map(|tree| root.join(tree).join(split));
    if other.is_dir() && !usual.is_dir() { other } else { usual }
}

/// The images of one split, sorted by path.
fn list(root: &Path, split: &str, account: &mut Account) -> Result<Vec<Item>> {
    let dir = root.join("leftImg8bit").join(split);
    if !dir.is_dir() {
        return Err(Error::file(
            &dir,
            "no such folder",
            "unpack leftImg8bit there, or choose another split",
        ));
    }
    let mut items = Vec::new();
    for image in files::images(&dir, account)? {
        let Some(id) = stem(&image).strip_suffix("_leftImg8bit").map(str::to_string) else {
            account.leave(1, "pictures of other names", "name them *_leftImg8bit.png");
            continue;
        };
        let city = image.parent().and_then(Path::file_name).unwrap_or_default();
        let name = format!("{id}_gtFine_labelIds.png");
        let label = LABELS
            .iter()
            .map(|tree| root.join(tree).join(split).join(city).join(&name))
            .find(|path| path.is_file());
        items.push(Item { id, image, label });
    }
    if items.is_empty() {
        return Err(Error::file(
            &dir,
            format!("no *_leftImg8bit.png below this folder{}", account.instead()),
            "unpack leftImg8bit there",
        ));
    }
    Ok(items)
}

/// Class = labelId − 7; the void ids 0..=6 and −1 (license plate, 255 as a byte) are ignored.
fn taxonomies() -> Vec<Taxonomy> {
    let void = (0..7).map(|id| (id, IGNORE));
    let ids = void.chain((7..34).map(|id| (id, id - 7)));
    let about = "the 27 classes of PiCIE's table of Cityscapes";
    let of_19 = |id: u8| NINETEEN.iter().position(|&kept| kept == id);
    let ids_19 = (0..34).map(|id| (id, of_19(id).map_or(IGNORE, |class| class as u8)));
    let names = NINETEEN.map(|id| CLASSES[usize::from(id) - 7]);
    let about_19 = "the 19 classes of the Cityscapes benchmark; all else is ignored";
    vec![
        Taxonomy::new("cityscapes 27", about, &CLASSES, ids),
        Taxonomy::new("cityscapes 19", about_19, &names, ids_19),
    ]
}

/// The labelIds that Cityscapes' benchmark scores, in the order of its trainIds.
const NINETEEN: [u8; 19] =
    [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33];

/// Cityscapes labelIds 7..=33, in order: class = labelId − 7.
const CLASSES: [&str; 27] = [
    "road",
    "sidewalk",
    "parking",
    "rail track",
    "building",
    "wall",
    "fence",
    "guard rail",
    "bridge",
    "tunnel",
    "pole",
    "polegroup",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "caravan",
    "trailer",
    "train",
    "motorcycle",
    "bicycle",
];
