//! The COCO-Stuff layout: `images/{split}2017/{id}.jpg`, `annotations/{split}2017/{id}.png` and,
//! where somebody put them, the curated lists `curated/{split}2017/Coco164kFull_Stuff_Coarse_7.txt`
//! that IIC and PiCIE use.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::{Item, Progress, decode, folder, no_such_split};
use crate::base::{Error, Result, stop};

const SPLITS: [&str; 2] = ["train", "val"];
const CURATED: &str = "Coco164kFull_Stuff_Coarse_7.txt";

/// The images of one split in the order of their ids: those of the curated list if there is one,
/// else those that pass the rule the list was made by, else (no annotations, or none passes) all.
/// An item has a label where the label map is there.
pub fn list(root: &Path, split: &str, progress: Progress) -> Result<Vec<Item>> {
    if !SPLITS.contains(&split) {
        return Err(no_such_split(split, &SPLITS));
    }
    let year = format!("{split}2017");
    let images = root.join("images").join(&year);
    if !images.is_dir() {
        return Err(Error::file(
            &images,
            "no such folder",
            "unpack the images there, or choose another split",
        ));
    }
    let labels = label_names(&root.join("annotations").join(&year))?;
    let item = |id: String, image: PathBuf| {
        let name = format!("{id}.png");
        let label = labels.contains(&name).then(|| root.join("annotations").join(&year).join(name));
        Item { id, image, label }
    };

    let curated = root.join("curated").join(&year).join(CURATED);
    if curated.is_file() {
        let text = std::fs::read_to_string(&curated).map_err(|e| Error::io(&curated, e))?;
        let ids = text.lines().map(str::trim).filter(|id| !id.is_empty());
        let items: Vec<_> =
            ids.map(|id| item(id.to_string(), images.join(format!("{id}.jpg")))).collect();
        return match items.is_empty() {
            true => Err(Error::file(
                &curated,
                "the list is empty",
                "remove it to use all images, or copy it again",
            )),
            false => Ok(items),
        };
    }
    let id = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let all: Vec<_> =
        folder::images(&images)?.into_iter().map(|image| item(id(&image), image)).collect();
    if all.is_empty() {
        return Err(Error::file(&images, "no image in this folder", "unpack the images there"));
    }
    let done = AtomicUsize::new(0);
    let keep: Vec<bool> = match labels.is_empty() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{touch, write_label};

    fn ids(root: &Path, split: &str) -> Vec<(String, bool)> {
        list(root, split, &|_, _| ())
            .unwrap()
            .into_iter()
            .map(|i| (i.id, i.label.is_some()))
            .collect()
    }

    fn label(root: &Path, id: &str, width: usize, height: usize, stuff: usize) {
        let map: Vec<u8> = (0..width * height).map(|i| if i < stuff { 181 } else { 90 }).collect();
        write_label(&root.join(format!("annotations/train2017/{id}.png")), width, height, &map);
    }

    #[test]
    fn the_curated_list_decides_and_keeps_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for id in ["000000000001", "000000000002", "000000000003"] {
            touch(&root.join(format!("images/val2017/{id}.jpg")));
        }
        touch(&root.join("annotations/val2017/000000000001.png"));
        let list_file = root.join("curated/val2017").join(CURATED);
        touch(&list_file);
        std::fs::write(&list_file, "000000000003\r\n000000000001\n\n").unwrap();
        assert_eq!(
            ids(root, "val"),
            [("000000000003".into(), false), ("000000000001".into(), true)]
        );
        std::fs::write(&list_file, "\n").unwrap();
        assert!(
            list(root, "val", &|_, _| ()).unwrap_err().to_string().contains("the list is empty")
        );
    }

    #[test]
    fn without_a_list_the_curation_rule_is_applied_at_its_edges() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let area = 360 * 361;
        label(root, "a", 361, 360, area * 3 / 4);
        label(root, "b", 361, 360, area * 3 / 4 - 1);
        label(root, "c", 360, 359, 360 * 359);
        label(root, "d", 359, 360, 360 * 359);
        for id in ["a", "b", "c", "d", "e"] {
            touch(&root.join(format!("images/train2017/{id}.jpg")));
        }
        assert_eq!(ids(root, "train"), [("a".into(), true)]);
        // None passes: all images, labelled or not.
        std::fs::remove_file(root.join("annotations/train2017/a.png")).unwrap();
        assert_eq!(ids(root, "train").len(), 5);
        // No annotations: all images.
        std::fs::remove_dir_all(root.join("annotations")).unwrap();
        assert_eq!(ids(root, "train").iter().filter(|i| !i.1).count(), 5);
    }

    #[test]
    fn a_label_map_that_cannot_be_read_stays_in_to_be_reported() {
        let dir = tempfile::tempdir().unwrap();
        touch(&dir.path().join("images/train2017/a.jpg"));
        touch(&dir.path().join("annotations/train2017/a.png"));
        assert_eq!(ids(dir.path(), "train"), [("a".into(), true)]);
    }
}
