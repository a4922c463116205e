//! The Potsdam layout: patches of the ortho tiles in `imgs/*.{png,jpg,tif}` and label maps of the
//! same stems in `gt/*.png`, colours as published or grey ids 0..=5. The published preprocessing
//! (IIC) cuts the tiles to patches of 200² at half resolution.
//!
//! A split is a list of stems `{split}.txt` beside `imgs`, or a folder `imgs/{split}`; where there
//! is neither of any split, each split is all patches, as IIC trains and evaluates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Item, folder, no_such_split};
use crate::base::{Error, Result};

const SPLITS: [&str; 3] = ["train", "val", "test"];

/// The patches of one split, sorted by path or in the list's order; an item has a label where the
/// label map is there.
pub fn list(root: &Path, split: &str) -> Result<Vec<Item>> {
    let (imgs, gt) = (root.join("imgs"), root.join("gt"));
    let listed = |split: &str| root.join(format!("{split}.txt"));
    let known: Vec<&str> = SPLITS
        .into_iter()
        .filter(|split| listed(split).is_file() || imgs.join(split).is_dir())
        .collect();
    let choose: &[&str] = if known.is_empty() { &SPLITS } else { &known };
    if !choose.contains(&split) {
        return Err(no_such_split(split, choose));
    }
    let item = |image: PathBuf| {
        let id = stem(&image);
        let name = format!("{id}.png");
        let label =
            [gt.join(split).join(&name), gt.join(&name)].into_iter().find(|path| path.is_file());
        Item { id, image, label }
    };
    let items: Vec<Item> = if listed(split).is_file() {
        let by_stem: BTreeMap<String, PathBuf> =
            folder::images(&imgs)?.into_iter().map(|p| (stem(&p), p)).collect();
        let text =
            std::fs::read_to_string(listed(split)).map_err(|e| Error::io(listed(split), e))?;
        let find = |name: &str| {
            // Names may end as the files do.
            let image = by_stem.get(name).or_else(|| by_stem.get(&stem(Path::new(name))));
            image.cloned().map(item).ok_or_else(|| {
                Error::file(
                    listed(split),
                    format!("no image {name:?} in {}", imgs.display()),
                    "copy it, or drop the line",
                )
            })
        };
        text.lines()
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(find)
            .collect::<Result<_>>()?
    } else {
        let dir = if known.is_empty() { imgs } else { imgs.join(split) };
        folder::images(&dir)?.into_iter().map(item).collect()
    };
    match items.is_empty() {
        true => Err(Error::file(
            root,
            format!("no image in split \"{split}\""),
            "put the patches into imgs",
        )),
        false => Ok(items),
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::touch;

    fn ids(root: &Path, split: &str) -> Vec<(String, bool)> {
        list(root, split).unwrap().into_iter().map(|i| (i.id, i.label.is_some())).collect()
    }

    #[test]
    fn without_lists_or_folders_every_split_is_everything_once() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["imgs/2_10_0.png", "imgs/2_10_1.tif", "gt/2_10_1.png"] {
            touch(&dir.path().join(name));
        }
        let all = [("2_10_0".to_string(), false), ("2_10_1".to_string(), true)];
        assert_eq!(ids(dir.path(), "train"), all);
        assert_eq!(ids(dir.path(), "val"), all);
        let classes = crate::data::Classes::Coarse3;
        let both = crate::data::open(dir.path(), None, "train,val", classes, &|_, _| ()).unwrap();
        assert_eq!((both.kind, both.items.len()), (crate::data::Kind::Potsdam, 2));
        assert!(list(dir.path(), "night").unwrap_err().to_string().contains("train, val, test"));
    }

    #[test]
    fn lists_and_folders_make_splits() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for name in ["imgs/a.png", "imgs/b.jpg", "imgs/test/c.png", "gt/b.png", "gt/test/c.png"] {
            touch(&root.join(name));
        }
        std::fs::write(root.join("train.txt"), "b.jpg\r\n\na\n").unwrap();
        assert_eq!(ids(root, "train"), [("b".into(), true), ("a".into(), false)]);
        assert_eq!(ids(root, "test"), [("c".into(), true)]);
        let e = list(root, "val").unwrap_err().to_string();
        assert!(e.contains("no split \"val\"") && e.contains("train, test"), "{e}");
        std::fs::write(root.join("train.txt"), "d\n").unwrap();
        let e = list(root, "train").unwrap_err().to_string();
        assert!(e.contains("train.txt: no image \"d\""), "{e}");
    }
}
