//! Label maps beside photos: pictures of few colours whose names are those of other pictures.
//!
//! People keep them in any way: in a folder of their own, beside the photo with another ending, or
//! under its name with a word behind it. So pictures are taken in families: those of a folder, an
//! ending, and the words at the end of names. A family whose names other pictures have, too, is
//! looked at, and its content decides.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::account::Account;
use super::decode;
use super::files::stem;
use crate::base::{Result, stop};

/// The members of a family that are looked at. If these disagree, all are.
const SAMPLES: usize = 4;

/// A picture is a label map if so many colours make up [`COVERED`] of its pixels. A photo has
/// hundreds; a label map stored as a grey JPEG has some more than it had classes.
const COLOURS: usize = 48;
const COVERED: f64 = 0.95;

/// The number of families that the account names.
const NAMED: usize = 3;

/// Leaves out label maps that lie beside photos below `root`, and counts them.
pub fn leave_out(root: &Path, images: Vec<PathBuf>, account: &mut Account) -> Result<Vec<PathBuf>> {
    let stems: Vec<String> = images.iter().map(|path| stem(path)).collect();
    let mut families: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (i, (path, stem)) in images.iter().zip(&stems).enumerate() {
        let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
        families.entry((path.parent(), ending, tail(stem))).or_default().push(i);
    }
    let families: Vec<Vec<usize>> = families.into_values().collect();
    let all = Names::new(0..images.len(), &stems);
    let look = |family: &Vec<usize>| -> Result<Vec<usize>> {
        if all.share(family) { label_maps(family, &images) } else { Ok(Vec::new()) }
    };
    let maps: Vec<Vec<usize>> = families.par_iter().map(look).collect::<Result<_>>()?;
    let mut photo = vec![true; images.len()];
    maps.iter().flatten().for_each(|&i| photo[i] = false);
    let photos = Names::new((0..images.len()).filter(|&i| photo[i]), &stems);
    let mut left = vec![false; images.len()];
    let mut named = Vec::new();
    for (family, mut maps) in families.iter().zip(maps) {
        // Label maps that lie beside label maps alone stay. A whole family goes together, as some
        // of its photos may be lacking.
        if maps.len() < family.len() || !photos.share(&maps) {
            maps.retain(|&i| photos.has(i));
        }
        maps.iter().for_each(|&i| left[i] = true);
        named.extend(maps.first().map(|&i| pattern(root, &images[i], tail(&stems[i]))));
    }
    let more = named.len().saturating_sub(NAMED);
    named.truncate(NAMED);
    let mut named = named.join(", ");
    if more > 0 {
        named += &format!(" and {more} more");
    }
    account.leave(left.iter().filter(|&&left| left).count(), "label maps", &named);
    Ok(images.into_iter().zip(left).filter_map(|(path, left)| (!left).then_some(path)).collect())
}

/// "SegmentationClass/*.png", the files of a family.
fn pattern(root: &Path, path: &Path, tail: &str) -> String {
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    let name = path.with_file_name(format!("*{tail}.{ending}"));
    name.strip_prefix(root).unwrap_or(&name).display().to_string()
}

/// Names, each with the picture that has it; `None` where several have it.
type Owners<'a> = HashMap<&'a str, Option<usize>>;

/// The names of pictures: what [`core`] leaves of them.
struct Names<'a> {
    stems: &'a [String],
    whole: Owners<'a>,
    /// Their beginnings up to a separator, as "a_1" of "a_1_left".
    begun: Owners<'a>,
}

impl<'a> Names<'a> {
    fn new(pictures: impl Iterator<Item = usize>, stems: &'a [String]) -> Self {
        let mut names = Names { stems, whole: HashMap::new(), begun: HashMap::new() };
        let add = |owners: &mut Owners<'a>, name: &'a str, picture: usize| {
            let owner = owners.entry(name).or_insert(Some(picture));
            if *owner != Some(picture) {
                *owner = None;
            }
        };
        for i in pictures {
            let core = core(&stems[i]);
            add(&mut names.whole, core, i);
            beginnings(core).for_each(|name| add(&mut names.begun, name, i));
        }
        names
    }

    /// Whether another picture has the name of picture `i`, or one goes on where the other ends.
    fn has(&self, i: usize) -> bool {
        let core = core(&self.stems[i]);
        let other = |owner: Option<&Option<usize>>| owner.is_some_and(|o| *o != Some(i));
        other(self.whole.get(core))
            || other(self.begun.get(core))
            || beginnings(core).any(|name| other(self.whole.get(name)))
    }

    /// Whether that is so of at least half of the members of a family.
    fn share(&self, members: &[usize]) -> bool {
        2 * members.iter().filter(|&&i| self.has(i)).count() >= members.len()
    }
}

/// The label maps among the members of a family: none or all of them, if the samples agree.
fn label_maps(family: &[usize], images: &[PathBuf]) -> Result<Vec<usize>> {
    let step = family.len().div_ceil(SAMPLES);
    let is_map = |i: &usize| -> Result<bool> {
        stop::check()?;
        Ok(is_label_map(&images[*i]))
    };
    let samples: Vec<bool> = family.iter().step_by(step).map(is_map).collect::<Result<_>>()?;
    if samples.iter().all(|&map| map == samples[0]) {
        return Ok(if samples[0] { family.to_vec() } else { Vec::new() });
    }
    let all: Vec<bool> = family.par_iter().map(is_map).collect::<Result<_>>()?;
    Ok(family.iter().zip(all).filter_map(|(&i, map)| map.then_some(i)).collect())
}

/// Whether few colours make up most of a picture. A JPEG must be grey, since a photo would take
/// long to decode. What cannot be read is none, so that whoever reads it says why.
fn is_label_map(path: &Path) -> bool {
    if !decode::may_be_labels(path) {
        return false;
    }
    let Ok(picture) = decode::rgb(path, false) else { return false };
    let mut counts: HashMap<&[u8], usize> = HashMap::new();
    picture.pixels.chunks_exact(3).for_each(|colour| *counts.entry(colour).or_default() += 1);
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let covered: usize = counts.iter().take(COLOURS).sum();
    covered as f64 >= COVERED * (picture.width * picture.height) as f64
}

/// The parts of a name: runs of letters, and runs of digits, by their places.
fn parts(name: &str) -> Vec<(Range<usize>, bool)> {
    let mut parts: Vec<(Range<usize>, bool)> = Vec::new();
    for (at, c) in name.char_indices().filter(|(_, c)| c.is_alphanumeric()) {
        let (word, end) = (c.is_alphabetic(), at + c.len_utf8());
        match parts.last_mut() {
            Some((range, last)) if range.end == at && *last == word => range.end = end,
            _ => parts.push((at..end, word)),
        }
    }
    parts
}

/// The place in a name of what says which picture it is: its parts without the words around them,
/// or without the last word where there are only words. It is "0001" in "0001_mask" and
/// "image_0001", and "cat" in "cat" and "cat_mask".
fn place(name: &str) -> Range<usize> {
    let parts = parts(name);
    let number = |part: &(Range<usize>, bool)| !part.1;
    match (parts.iter().position(number), parts.iter().rposition(number), parts.len()) {
        (Some(first), Some(last), _) => parts[first].0.start..parts[last].0.end,
        (_, _, 0 | 1) => 0..name.len(),
        (_, _, words) => 0..parts[words - 2].0.end,
    }
}

/// What a name says of which picture it is: all of it, where there are only words.
fn core(name: &str) -> &str {
    if name.contains(char::is_numeric) { &name[place(name)] } else { name }
}

/// What stands behind its place in a name.
fn tail(name: &str) -> &str {
    &name[place(name).end..]
}

/// The beginnings of a name that end before something that is neither letter nor digit.
fn beginnings(name: &str) -> impl Iterator<Item = &str> {
    let parted = name.char_indices().filter(|(at, c)| *at > 0 && !c.is_alphanumeric());
    parted.map(|(at, _)| &name[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_of_a_name_is_what_photo_and_label_map_share() {
        for (name, want, rest) in [
            ("0001", "0001", ""),
            ("0001_mask", "0001", "_mask"),
            ("image_0001", "0001", ""),
            ("img12", "12", ""),
            ("cat", "cat", ""),
            ("cat_mask", "cat_mask", "_mask"),
            ("red_cat_mask", "red_cat_mask", "_mask"),
            ("2007_000032", "2007_000032", ""),
            ("ulm_000001_000019_gtFine_labelIds", "000001_000019", "_gtFine_labelIds"),
            ("ADE_train_00000001_seg", "00000001", "_seg"),
            ("фото-1-маска", "1", "-маска"),
            ("___", "___", ""),
            ("", "", ""),
        ] {
            assert_eq!((core(name), tail(name)), (want, rest), "{name}");
        }
        assert_eq!(
            beginnings("000001_000019_left8").collect::<Vec<_>>(),
            ["000001", "000001_000019"]
        );
    }
}
