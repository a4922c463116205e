//! Any folder of images, and the file listing the other layouts share.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::Item;
use crate::base::{Error, Result, stop};

const EXTENSIONS: [&str; 7] = ["jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff"];

/// Every image at any depth below `root`, sorted by path. Hidden files and folders are left out.
pub fn list(root: &Path) -> Result<Vec<Item>> {
    let images = images(root)?;
    if images.is_empty() {
        return Err(Error::file(
            root,
            "no image in this folder",
            "give a folder of jpg, png, bmp, webp or tif files, one with images/train2017 (COCO-Stuff) or one with \
             leftImg8bit (Cityscapes)",
        ));
    }
    let id = |path: &Path| {
        path.strip_prefix(root).unwrap_or(path).with_extension("").to_string_lossy().into_owned()
    };
    Ok(images.into_iter().map(|image| Item { id: id(&image), image, label: None }).collect())
}

/// The image files at any depth below `dir`, sorted by path.
pub fn images(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    walk(dir, &mut HashSet::new(), &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(dir: &Path, seen: &mut HashSet<PathBuf>, found: &mut Vec<PathBuf>) -> Result<()> {
    let io = |e| Error::io(dir, e);
    // Links to folders are followed, so a folder may be met twice, or contain itself.
    if !seen.insert(dir.canonicalize().map_err(io)?) {
        return Ok(());
    }
    stop::check()?;
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if path.is_dir() {
            walk(&path, seen, found)?;
        } else if is_image(&path) {
            found.push(path);
        }
    }
    Ok(())
}

fn is_image(path: &Path) -> bool {
    path.extension().is_some_and(|e| EXTENSIONS.iter().any(|known| e.eq_ignore_ascii_case(known)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::touch;

    #[test]
    fn images_are_found_at_any_depth_in_a_fixed_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "z.PNG",
            "b/a.jpg",
            "b/c/d.webp",
            "b/readme.txt",
            ".cache/e.jpg",
            "b/.f.jpg",
            "a.tiff",
            "b/nojpg",
        ] {
            touch(&dir.path().join(name));
        }
        let items = list(dir.path()).unwrap();
        let ids: Vec<_> = items.iter().map(|i| i.id.as_str()).collect();
        assert_eq!(ids, ["a", "b/a", "b/c/d", "z"]);
        assert!(items.iter().all(|i| i.label.is_none()));
        assert!(items[1].image.ends_with("b/a.jpg"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_folder_is_followed_once() {
        let dir = tempfile::tempdir().unwrap();
        let far = tempfile::tempdir().unwrap();
        touch(&far.path().join("a.jpg"));
        std::os::unix::fs::symlink(far.path(), dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("loop")).unwrap();
        assert_eq!(list(dir.path()).unwrap().len(), 1);
    }
}
