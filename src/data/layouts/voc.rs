//! The layout of Pascal VOC: `JPEGImages/{id}.jpg`, `SegmentationClass/{id}.png` with VOC's
//! palette, and lists of ids in `ImageSets/Segmentation/{train,val,trainval}.txt`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::{DataLayout, images_labels};
use crate::base::{Error, Result};
use crate::data::account::Account;
use crate::data::files::{Item, OnProgress};
use crate::data::labels::{IGNORE, Taxonomy};
use crate::data::palette::Colour;

pub static LAYOUT: DataLayout = DataLayout {
    name: "voc",
    title: "Pascal VOC",
    files: "JPEGImages/*.jpg, SegmentationClass/*.png, ImageSets/Segmentation/{train,val}.txt",
    mark: "JPEGImages and SegmentationClass",
    detect: |root| root.join(IMAGES).is_dir() && root.join(MAPS).is_dir(),
    splits: |root| {
        let there: Vec<&str> =
            SPLITS.into_iter().filter(|split| list_of(root, split).is_file()).collect();
        if ["train", "val"].iter().all(|split| there.contains(split)) { there } else { vec![] }
    },
    list,
    own: &[IMAGES, MAPS, "SegmentationObject", "ImageSets", "Annotations"],
    labels: |root, _| Some((root.join(MAPS), "IMAGE.png")),
    taxonomies,
    find_classes: None,
    paper: false,
};

const IMAGES: &str = "JPEGImages";
const MAPS: &str = "SegmentationClass";
const SPLITS: [&str; 3] = ["train", "val", "trainval"];

fn list_of(root: &Path, split: &str) -> PathBuf {
    root.join("ImageSets/Segmentation").join(format!("{split}.txt"))
}

fn list(root: &Path, split: &str, _: OnProgress, account: &mut Account) -> Result<Vec<Item>> {
    let mut items = images_labels::pairs(&root.join(IMAGES), &root.join(MAPS), account)?;
    if (LAYOUT.splits)(root).is_empty() {
        return Ok(items);
    }
    let path = list_of(root, split);
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let ids: HashSet<&str> = text.split_whitespace().collect();
    let all = items.len();
    items.retain(|item| ids.contains(&*item.id));
    account.pass(all - items.len(), "images of other splits");
    if items.is_empty() {
        return Err(Error::file(&path, "no image of this list is there", "copy JPEGImages again"));
    }
    Ok(items)
}

/// Values 0..=20, 255 ignored, by palette index or by colour.
fn taxonomies() -> Vec<Taxonomy> {
    let about = "Pascal VOC's 20 classes and the background";
    let table = Taxonomy::new("voc 21", about, &CLASSES, (0..21).map(|id| (id, id)));
    let shown = (0..21).map(|id| Some(colour(id))).collect();
    let colours = (0..21).map(|id| (colour(id), id)).chain([(colour(255), IGNORE)]).collect();
    vec![Taxonomy { shown, colours, ..table }]
}

/// VOC's colour of a value: its bits, three at a time, from the highest bit of each channel down.
fn colour(value: u8) -> Colour {
    let bit = |at: u32| value >> at & 1;
    [0, 1, 2].map(|channel| {
        (0..3)
            .map(|i| (if 3 * i + channel < 8 { bit(3 * i + channel) } else { 0 }) << (7 - i))
            .sum()
    })
}

const CLASSES: [&str; 21] = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "dining table",
    "dog",
    "horse",
    "motorbike",
    "person",
    "potted plant",
    "sheep",
    "sofa",
    "train",
    "tv monitor",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_vocs() {
        assert_eq!(
            [0, 1, 2, 3, 15, 20, 255].map(colour),
            [
                [0, 0, 0],
                [128, 0, 0],
                [0, 128, 0],
                [128, 128, 0],
                [192, 128, 128],
                [0, 64, 128],
                [224, 224, 192],
            ]
        );
    }
}
