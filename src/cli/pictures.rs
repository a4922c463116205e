//! The images of a set and their classes, in the form that pictures are drawn from.

use image::RgbImage;

use crate::base::Result;
use crate::data::{EvalStore, IGNORE, ImageStore};
use crate::report::pictures::NONE;

/// Up to `few` of the numbers below `all`, spread evenly over them.
pub fn spread(all: usize, few: usize) -> Vec<usize> {
    let few = few.min(all);
    (0..few).map(|i| (2 * i + 1) * all / (2 * few)).collect()
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

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn few_are_spread_over_all() {
        assert_eq!(spread(100, 4), [12, 37, 62, 87]);
        assert_eq!((spread(3, 6), spread(0, 6), spread(5, 0)), (vec![0, 1, 2], vec![], vec![]));
    }
}
