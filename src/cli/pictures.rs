//! The images of a set and their classes, in the form that pictures are drawn from.

use std::path::Path;

use image::RgbImage;

use crate::base::{Error, Result};
use crate::data::{EvalStore, IGNORE, ImageStore, Item};
use crate::report::pictures::NONE;

/// The number of the image that the user calls so: by its name in the set, or by the end of its
/// path, with or without the ending. Fails if there is none, or several.
pub fn named(images: &ImageStore, name: &str) -> Result<usize> {
    let all = |is: &dyn Fn(&Item) -> bool| -> Vec<usize> {
        (0..images.len()).filter(|&i| is(&images.items[i])).collect()
    };
    let ends = |path: &Path| path.ends_with(name) || path.with_extension("").ends_with(name);
    let mut found = all(&|item| item.id == name);
    if found.is_empty() {
        found = all(&|item| ends(&item.image));
    }
    match found[..] {
        [one] => Ok(one),
        [] => Err(Error::input(
            format!("{name} is neither a file nor an image of the data set"),
            "give a path, or an image's name with or without folders and ending",
        )),
        [one, two, ..] => {
            let [one, two] = [one, two].map(|i| images.items[i].image.display());
            let what = format!("{name} may be {one} or {two}");
            Err(Error::input(what, "give more of its path, or its ending"))
        }
    }
}

/// The image number `i` of a set.
pub fn picture(images: &ImageStore, i: usize) -> Result<RgbImage> {
    let side = images.size();
    let mut pixels = vec![0; side * side * 3];
    images.gather(&[i as u32], &mut pixels)?;
    Ok(RgbImage::from_raw(side as u32, side as u32, pixels).expect("gathered a whole image"))
}

/// The true classes (size, size) of image number `i` of a set.
pub fn truth(set: &EvalStore, i: usize) -> Result<Vec<u16>> {
    let mut truth = vec![0; set.images.size().pow(2)];
    set.gather_labels(&[i as u32], &mut truth)?;
    Ok(truth.into_iter().map(|c| if c == IGNORE { NONE } else { u16::from(c) }).collect())
}
