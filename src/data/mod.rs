//! Pictures in: data set readers, label tables, decoding, the store every other part reads from,
//! and a generator of scenes.
//!
//! ```text
//! open ─ coco_stuff cityscapes potsdam folder   which files, and their label maps where there are any
//! ImageStore EvalStore ─ decode transform       files → u8 (N, S, S, 3) and classes (N, S, S), decoded once
//! Taxonomy ─ tables                             label value → class
//! lab                                           colours as people tell them apart
//! scenes                                        a small data set to start with
//! ```

mod cityscapes;
mod coco_stuff;
pub mod decode;
mod folder;
pub mod lab;
mod labels;
mod potsdam;
pub mod scenes;
mod store;
mod tables;
#[cfg(test)]
mod testing;
pub mod transform;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};
pub use labels::{IGNORE, Taxonomy};
pub use store::{EvalStore, ImageStore, Load, PictureSet, kept};
pub use transform::Fit;

/// Told (done, total) as a long pass over files proceeds; called from many threads.
pub type Progress<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// How a data set lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `images/{train,val}2017/*.jpg`, `annotations/{train,val}2017/*.png`.
    CocoStuff,
    /// `leftImg8bit/{split}/{city}/*.png`, `gtFine/{split}/{city}/*_labelIds.png`.
    Cityscapes,
    /// `imgs/*`, `gt/*.png`: patches of ISPRS Potsdam.
    Potsdam,
    /// Any folder of images, at any depth, without labels.
    Folder,
}

/// Which classes labels are read as; not every data set has each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Classes {
    /// The 27 classes of PiCIE's tables, of COCO-Stuff or of Cityscapes.
    #[default]
    #[value(name = "27")]
    All27,
    /// COCO-Stuff's 15 coarse stuff classes; things are ignored.
    #[value(name = "15")]
    Stuff15,
    /// COCO-Stuff's 12 coarse thing classes; stuff is ignored.
    #[value(name = "12")]
    Things12,
    /// Potsdam's 6 classes.
    #[value(name = "6")]
    Potsdam6,
    /// COCO-Stuff's sky, plant and ground, all else ignored; or Potsdam's 6 in pairs.
    #[value(name = "3")]
    Coarse3,
}

/// One picture and, where the data set has one, its label map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The name results are listed under: file stem, or path below the root for a plain folder.
    pub id: String,
    pub image: PathBuf,
    pub label: Option<PathBuf>,
}

/// The files of some splits of a data set, in a fixed order; nothing is decoded yet.
#[derive(Clone, Debug)]
pub struct Dataset {
    pub kind: Kind,
    pub root: PathBuf,
    pub split: String,
    pub items: Vec<Item>,
    /// None for a plain folder, which has no labels.
    pub taxonomy: Option<Taxonomy>,
}

/// Lists the images of `split`, one name or several with commas between (COCO-Stuff: train, val;
/// Cityscapes: train, val, test, train_extra; Potsdam: train, val, test; a plain folder has no
/// splits and ignores it). `kind` None looks at the folder.
///
/// `progress` is called only where COCO-Stuff has to be curated from its annotations (see
/// `coco_stuff`).
///
/// Errors: `root` is missing, is no known layout, holds no image, has no such split or no such
/// classes.
pub fn open(
    root: &Path,
    kind: Option<Kind>,
    split: &str,
    classes: Classes,
    progress: Progress,
) -> Result<Dataset> {
    std::fs::read_dir(root).map_err(|e| Error::io(root, e))?;
    let kind = kind.unwrap_or_else(|| detect(root));
    let taxonomy = Taxonomy::of(kind, classes)?;
    let mut items = Vec::new();
    for split in split.split(',').map(str::trim) {
        match kind {
            Kind::CocoStuff => items.extend(coco_stuff::list(root, split, progress)?),
            Kind::Cityscapes => items.extend(cityscapes::list(root, split)?),
            Kind::Potsdam => items.extend(potsdam::list(root, split)?),
            Kind::Folder => {
                items = folder::list(root)?;
                break;
            }
        }
    }
    // Splits may overlap.
    let mut seen = HashSet::new();
    items.retain(|item| seen.insert(item.image.clone()));
    Ok(Dataset { kind, root: root.to_path_buf(), split: split.to_string(), items, taxonomy })
}

/// Classes that a data set has a table of, for those who do not ask for its labels.
pub fn any_classes(root: &Path, kind: Option<Kind>) -> Classes {
    match kind.unwrap_or_else(|| detect(root)) {
        Kind::Potsdam => Classes::Coarse3,
        _ => Classes::All27,
    }
}

/// What labels of a data set are read as; None where it has none.
pub fn taxonomy(root: &Path, kind: Option<Kind>, classes: Classes) -> Result<Option<Taxonomy>> {
    Taxonomy::of(kind.unwrap_or_else(|| detect(root)), classes)
}

fn detect(root: &Path) -> Kind {
    if ["train2017", "val2017"].iter().any(|s| root.join("images").join(s).is_dir()) {
        Kind::CocoStuff
    } else if root.join("leftImg8bit").is_dir() {
        Kind::Cityscapes
    } else if root.join("imgs").is_dir() && root.join("gt").is_dir() {
        Kind::Potsdam
    } else {
        Kind::Folder
    }
}

/// The error for a split a layout does not have.
fn no_such_split(split: &str, known: &[&str]) -> Error {
    Error::input(
        format!("there is no split \"{split}\" here"),
        format!("choose among {}", known.join(", ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::touch;

    #[test]
    fn kinds_and_classes_have_the_names_of_the_command_line() {
        use clap::ValueEnum;
        assert_eq!(Kind::from_str("coco-stuff", false), Ok(Kind::CocoStuff));
        assert_eq!(Kind::from_str("cityscapes", false), Ok(Kind::Cityscapes));
        assert_eq!(Kind::from_str("folder", false), Ok(Kind::Folder));
        assert_eq!(Kind::from_str("potsdam", false), Ok(Kind::Potsdam));
        assert_eq!(Classes::from_str("15", false), Ok(Classes::Stuff15));
        assert_eq!(Classes::from_str("3", false), Ok(Classes::Coarse3));
    }

    #[test]
    fn the_layout_is_detected() {
        let dir = tempfile::tempdir().unwrap();
        let kind =
            |root: &Path| open(root, None, "val", Classes::All27, &|_, _| ()).map(|d| d.kind);
        touch(&dir.path().join("coco/images/val2017/b.jpg"));
        touch(&dir.path().join("city/leftImg8bit/val/bonn/bonn_0_leftImg8bit.png"));
        touch(&dir.path().join("mine/deep/down/a.JPEG"));
        assert_eq!(kind(&dir.path().join("coco")).unwrap(), Kind::CocoStuff);
        assert_eq!(kind(&dir.path().join("city")).unwrap(), Kind::Cityscapes);
        assert_eq!(kind(&dir.path().join("mine")).unwrap(), Kind::Folder);
    }

    #[test]
    fn a_missing_or_empty_or_unfit_folder_is_one_clear_line() {
        let dir = tempfile::tempdir().unwrap();
        let open = |root: &Path, kind, split, classes| {
            open(root, kind, split, classes, &|_, _| ()).unwrap_err().to_string()
        };
        let gone = open(&dir.path().join("gone"), None, "train", Classes::All27);
        assert!(gone.contains("gone: no such file or directory; check the path"), "{gone}");
        let empty = open(dir.path(), None, "train", Classes::All27);
        assert!(
            empty.contains("no image in this folder") && empty.contains("images/train2017"),
            "{empty}"
        );
        let unfit = open(dir.path(), Some(Kind::CocoStuff), "train", Classes::All27);
        assert!(unfit.contains("images/train2017: no such folder"), "{unfit}");
        let split = open(dir.path(), Some(Kind::Cityscapes), "train,night", Classes::All27);
        assert!(split.contains("train"), "{split}");
        let classes = open(dir.path(), Some(Kind::Folder), "train", Classes::Stuff15);
        assert!(
            classes.contains("15 classes") && classes.contains("use --classes 27"),
            "{classes}"
        );
        for e in [gone, empty, unfit, split, classes] {
            assert!(!e.contains('\n'));
        }
    }
}
