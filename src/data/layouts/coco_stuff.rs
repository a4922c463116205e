//! The COCO-Stuff layout: `images/{split}2017/{id}.jpg`, `annotations/{split}2017/{id}.png` and,
//! where somebody put them, the curated lists `curated/{split}2017/Coco164kFull_Stuff_Coarse_7.txt`
//! that IIC and PiCIE use. As COCO unpacks, images lie in `{split}2017` and label maps in
//! `stuffthingmaps/{split}2017`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::DataLayout;
use crate::base::{Error, Result, stop};
use crate::data::account::Account;
use crate::data::decode;
use crate::data::files::{Item, OnProgress, stem};
use crate::data::labels::{IGNORE, Taxonomy};
use crate::data::maps;
use crate::data::{classes, coco_fine};

/// The name of a curated list of ids.
pub const CURATED: &str = "Coco164kFull_Stuff_Coarse_7.txt";

pub static LAYOUT: DataLayout = DataLayout {
    name: "coco-stuff",
    title: "COCO-Stuff",
    files: "[images/]{train,val}2017/*.jpg, {annotations,stuffthingmaps}/{train,val}2017/*.png",
    mark: "images/train2017",
    detect: |root| SPLITS.iter().any(|s| images_of(root, &format!("{s}2017")).is_dir()),
    splits: |_| SPLITS.to_vec(),
    list,
    own: &OWN,
    labels: |root, split| Some((labels_of(root, &format!("{split}2017")), "IMAGE.png")),
    taxonomies,
    find_classes: None,
    paper: true,
};

const SPLITS: [&str; 2] = ["train", "val"];

/// What COCO and COCO-Stuff unpack to, and the lists.
const OWN: [&str; 9] = [
    "images",
    "train2017",
    "val2017",
    "test2017",
    "unlabeled2017",
    "annotations",
    "stuffthingmaps",
    "stuffthingmaps_trainval2017",
    "curated",
];

/// The remedy where the layout does not take images.
const ALL: &str = "--dataset folder takes all";

/// The folder of a split's images: at the top where it lies there, else in `images`.
fn images_of(root: &Path, year: &str) -> PathBuf {
    let [flat, usual] = [root.join(year), root.join("images").join(year)];
    if flat.is_dir() && !usual.is_dir() { flat } else { usual }
}

/// The folder of a split's label maps: the first that is there.
fn labels_of(root: &Path, year: &str) -> PathBuf {
    let [usual, other @ ..] = ["annotations", "stuffthingmaps", "stuffthingmaps_trainval2017"]
        .map(|tree| root.join(tree).join(year));
    if usual.is_dir() { usual } else { other.into_iter().find(|dir| dir.is_dir()).unwrap_or(usual) }
}

/// The images of one split in the order of their ids: those of the curated list if there is one,
/// else those that pass the rule the list was made by, else (no annotations, or none passes) all.
fn list(
    root: &Path,
    split: &str,
    progress: OnProgress,
    account: &mut Account,
) -> Result<Vec<Item>> {
    let year = format!("{split}2017");
    let (images, maps) = (images_of(root, &year), labels_of(root, &year));
    if !images.is_dir() {
        return Err(Error::file(
            &images,
            "no such folder",
            "unpack the images there, or choose another split",
        ));
    }
    let labels = label_names(&maps)?;
    let item = |id: String, image: PathBuf| {
        let name = format!("{id}.png");
        let label = labels.contains(&name).then(|| maps.join(name));
        Item { id, image, label }
    };

    let all = maps::photos(&images, account)?;
    let curated = root.join("curated").join(&year).join(CURATED);
    if curated.is_file() {
        let text = std::fs::read_to_string(&curated).map_err(|e| Error::io(&curated, e))?;
        let ids = text.lines().map(str::trim).filter(|id| !id.is_empty());
        let items: Vec<_> =
            ids.map(|id| item(id.to_string(), images.join(format!("{id}.jpg")))).collect();
        let on_list: HashSet<&Path> = items.iter().map(|item| &*item.image).collect();
        let others = all.iter().filter(|image| !on_list.contains(image.as_path())).count();
        account.leave(others, "images that are not on the curated list", ALL);
        return match items.is_empty() {
            true => Err(Error::file(
                &curated,
                "the list is empty",
                "remove it to use all images, or copy it again",
            )),
            false => Ok(items),
        };
    }
    let all: Vec<_> = all.into_iter().map(|image| item(stem(&image), image)).collect();
    if all.is_empty() {
        let what = format!("no image in this folder{}", account.instead());
        return Err(Error::file(&images, what, "unpack the images there"));
    }
    let done = AtomicUsize::new(0);
    // The rule is of COCO's own classes.
    let keep: Vec<bool> = match labels.is_empty() || classes::file(root).is_some() {
        true => vec![],
        false => all
            .par_iter()
            .map(|item| -> Result<bool> {
                stop::check()?;
                let keep = item.label.as_deref().is_some_and(mostly_stuff);
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, all.len());
                Ok(keep)
            })
            .collect::<Result<_>>()?,
    };
    if !keep.contains(&true) {
        return Ok(all);
    }
    let kept = keep.iter().filter(|&&keep| keep).count();
    let what = "images that the paper's rule does not take";
    account.leave(keep.len() - kept, what, ALL);
    Ok(all.into_iter().zip(keep).filter_map(|(item, keep)| keep.then_some(item)).collect())
}

/// File names in the annotation folder; none if there is no such folder, for labels are never
/// needed to train.
fn label_names(dir: &Path) -> Result<HashSet<String>> {
    if !dir.is_dir() {
        return Ok(HashSet::new());
    }
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        Ok(entry?.file_name().to_string_lossy().into_owned())
    };
    let names: std::io::Result<_> =
        std::fs::read_dir(dir).and_then(|entries| entries.map(name).collect());
    names.map_err(|e| Error::io(dir, e))
}

/// The curation rule of IIC's "version 7" lists: both sides at least 360 and at least 75 % of the
/// pixels stuff (91..=181). A label map that cannot be read passes, so that whoever needs it is
/// told.
fn mostly_stuff(label: &Path) -> bool {
    let Ok(map) = decode::label(label) else { return true };
    let stuff = map.ids.iter().filter(|id| (91..=181).contains(*id)).count();
    map.width >= 360 && map.height >= 360 && 4 * stuff >= 3 * map.ids.len()
}

/// PNG values 0..=181 by the fine → coarse table, 255 ignored. With 15 (stuff), 12 (things) or 3
/// classes all others are ignored.
///
/// NOTE: the released PiCIE code means to do that for 15 but never shifts the labels (its mask is
/// always empty).
fn taxonomies() -> Vec<Taxonomy> {
    // The coarse classes that are kept, in order.
    let table = |name, about, classes: &[&str], kept: &[usize]| {
        let class = |coarse: u8| kept.iter().position(|&kept| kept == usize::from(coarse));
        let ids = FINE_TO_COARSE.iter().map(|&c| class(c).map_or(IGNORE, |class| class as u8));
        Taxonomy::new(name, about, classes, (0..).zip(ids))
    };
    let all: Vec<usize> = (0..COARSE.len()).collect();
    let parts = vec![("things", 0..STUFF_FROM), ("stuff", STUFF_FROM..COARSE.len())];
    let (things, stuff) = COARSE.split_at(STUFF_FROM);
    vec![
        Taxonomy {
            parts,
            ..table("coco-stuff 27", "the 27 classes of PiCIE's table of COCO-Stuff", &COARSE, &all)
        },
        table(
            "coco-stuff 15",
            "COCO-Stuff's 15 coarse stuff classes; things are ignored",
            stuff,
            &all[STUFF_FROM..],
        ),
        table(
            "coco-stuff 12",
            "COCO-Stuff's 12 coarse thing classes; stuff is ignored",
            things,
            &all[..STUFF_FROM],
        ),
        table(
            "coco-stuff 3",
            "COCO-Stuff's sky, plant and ground, all else ignored",
            &THREE,
            &THREE_OF_27,
        ),
        coco_fine::taxonomy(),
    ]
}

/// Coarse class of each COCO-Stuff fine id (the PNG value 0..=181). Source: the COCO-Stuff
/// hierarchy (Caesar et al., CVPR 2018) as IIC and PiCIE number its 27 coarse classes; its 182
/// bytes have SHA-256 5b6c6ce82fb97a8c2d29cc61a451953c…
const FINE_TO_COARSE: [u8; 182] = [
    9, 11, 11, 11, 11, 11, 11, 11, 11, 8, 8, 8, 8, 8, 8, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 6, 6, 6, 6,
    6, 6, 6, 6, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 5, 5, 5, 5, 5, 5, 5, 5, 2, 2, 2, 2, 2, 2,
    2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 4, 4, 4, 4, 4, 4,
    4, 4, 17, 17, 22, 20, 20, 22, 15, 25, 16, 13, 12, 12, 17, 17, 23, 15, 15, 17, 15, 21, 15, 25,
    13, 13, 13, 13, 13, 22, 26, 14, 14, 15, 22, 21, 21, 24, 20, 22, 15, 17, 16, 15, 22, 24, 21, 17,
    25, 16, 21, 17, 22, 16, 21, 21, 25, 21, 26, 21, 24, 20, 17, 14, 21, 26, 15, 23, 20, 21, 24, 15,
    24, 22, 25, 15, 20, 17, 17, 22, 14, 18, 18, 18, 18, 18, 18, 18, 26, 26, 19, 19, 24,
];

/// 12 coarse thing classes, then 15 coarse stuff classes.
const COARSE: [&str; 27] = [
    "electronic",
    "appliance",
    "food-things",
    "furniture-things",
    "indoor",
    "kitchen",
    "accessory",
    "animal",
    "outdoor",
    "person",
    "sports",
    "vehicle",
    "ceiling",
    "floor",
    "food-stuff",
    "furniture-stuff",
    "raw-material",
    "textile",
    "wall",
    "window",
    "building",
    "ground",
    "plant",
    "sky",
    "solid",
    "structural",
    "water",
];

/// The first stuff class of `COARSE`; the things come before it.
const STUFF_FROM: usize = 12;

/// COCO-Stuff-3 in IIC's order, and their numbers among the 27.
const THREE: [&str; 3] = ["sky", "plant", "ground"];
const THREE_OF_27: [usize; 3] = [23, 22, 21];

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV-1a, 64 bits.
    fn checksum(bytes: &[u8]) -> u64 {
        bytes
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
    }

    #[test]
    fn the_fine_to_coarse_table_is_the_published_one() {
        // The checksum of the 182 bytes whose SHA-256 is
        // 5b6c6ce82fb97a8c2d29cc61a451953c867c5aa043372a5286bbf668351e7129.
        assert_eq!(checksum(&FINE_TO_COARSE), 0xddd8_51fe_e21e_7314);
        // Things are 0..=90, stuff 91..=181.
        assert!(
            (0..182).all(|fine| (fine <= 90) == (usize::from(FINE_TO_COARSE[fine]) < STUFF_FROM))
        );
    }
}
