//! Label maps beside photos: pictures of few colours whose names are those of other pictures.
//!
//! People keep them in any way: in a folder of their own, beside the photo with another ending,
//! under its name with a word behind it, or in a folder for each photo. So pictures are taken in
//! families: those of a folder, an ending, and the words at the end of names. A family whose names
//! other pictures have, too, is looked at, and its content decides.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::account::{Account, LABEL_MAPS};
use super::decode;
use super::files::{self, stem};
use crate::base::{Result, stop};

/// The members of a family that are looked at. If one of these is a label map, all are.
const SAMPLES: usize = 8;

/// A picture is a label map if so many colours make up [`COVERED`] of its pixels. A photo has
/// hundreds; a label map stored as a grey JPEG has some more than it had classes.
const COLOURS: usize = 48;
const COVERED: f64 = 0.95;

/// The same for a JPEG of colours, which smears them where regions meet.
const COVERED_IN_JPEG: f64 = 0.75;

/// The number of pixels that are looked at of a picture.
const PIXELS: usize = 1 << 16;

/// The number of families that the account names.
const NAMED: usize = 3;

/// What helps where a drawing was taken for a label map.
const ALL: &str = "--dataset every-image takes them, too";

/// The images below `dir` as [`files::images`] lists them, without label maps that lie beside
/// photos.
pub fn photos(dir: &Path, account: &mut Account) -> Result<Vec<PathBuf>> {
    leave_out(dir, files::images(dir, account)?, account)
}

/// Leaves out label maps that lie beside photos below `root`, and counts them.
fn leave_out(root: &Path, images: Vec<PathBuf>, account: &mut Account) -> Result<Vec<PathBuf>> {
    let stems: Vec<String> = images.iter().map(|path| stem(path)).collect();
    let mut families: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (i, (path, stem)) in images.iter().zip(&stems).enumerate() {
        let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
        families.entry((path.parent(), ending, tail(stem))).or_default().push(i);
    }
    let families: Vec<Vec<usize>> = families.into_values().collect();
    let folders = folders(&images, &stems);
    let all = Names::new(0..images.len(), &stems, &folders);
    let look = |family: &Vec<usize>| -> Result<Vec<usize>> {
        if all.share(family) { label_maps(family, &images) } else { Ok(Vec::new()) }
    };
    let maps: Vec<Vec<usize>> = families.par_iter().map(look).collect::<Result<_>>()?;
    let mut photo = vec![true; images.len()];
    maps.iter().flatten().for_each(|&i| photo[i] = false);
    let photos = Names::new((0..images.len()).filter(|&i| photo[i]), &stems, &folders);
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
    let remedy = format!("{named}; {ALL}");
    account.leave(left.iter().filter(|&&left| left).count(), LABEL_MAPS, &remedy);
    Ok(images.into_iter().zip(left).filter_map(|(path, left)| (!left).then_some(path)).collect())
}

/// The folder that says which picture it is, for pictures whose names do not: those of words that
/// several folders have, as "img" and "label" in a folder for each photo.
fn folders<'a>(images: &'a [PathBuf], stems: &'a [String]) -> Vec<Option<&'a str>> {
    let folder = |i: usize| images[i].parent().and_then(Path::to_str);
    let mut places: HashMap<&str, HashSet<Option<&str>>> = HashMap::new();
    for (i, stem) in stems.iter().enumerate().filter(|(_, stem)| !stem.contains(char::is_numeric)) {
        places.entry(stem).or_default().insert(folder(i));
    }
    let several = |i: usize| places.get(&*stems[i]).is_some_and(|folders| folders.len() > 1);
    (0..images.len()).map(|i| folder(i).filter(|_| several(i))).collect()
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
    folders: &'a [Option<&'a str>],
    whole: Owners<'a>,
    /// Their parts up to a separator or from one on, as "a_1" of "a_1_left" and "1" of "S2_1".
    parts: Owners<'a>,
    /// The folders that stand for names.
    shared: Owners<'a>,
}

impl<'a> Names<'a> {
    fn new(
        pictures: impl Iterator<Item = usize>,
        stems: &'a [String],
        folders: &'a [Option<&'a str>],
    ) -> Self {
        let (whole, parts, shared) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut names = Names { stems, folders, whole, parts, shared };
        let add = |owners: &mut Owners<'a>, name: &'a str, picture: usize| {
            let owner = owners.entry(name).or_insert(Some(picture));
            if *owner != Some(picture) {
                *owner = None;
            }
        };
        for i in pictures {
            let core = core(&stems[i]);
            add(&mut names.whole, core, i);
            add(&mut names.whole, &stems[i], i);
            beginnings(core).chain(endings(core)).for_each(|name| add(&mut names.parts, name, i));
            folders[i].into_iter().for_each(|folder| add(&mut names.shared, folder, i));
        }
        names
    }

    /// Whether another picture has the name of picture `i`, or one has more words before or behind
    /// it than the other.
    fn has(&self, i: usize) -> bool {
        let stem = &*self.stems[i];
        let core = core(stem);
        let other = |owner: Option<&Option<usize>>| owner.is_some_and(|o| *o != Some(i));
        let mut longer = beginnings(core).chain(endings(core)).chain(beginnings(stem));
        other(self.whole.get(core))
            || other(self.parts.get(core))
            || longer.any(|name| other(self.whole.get(name)))
            || self.folders[i].is_some_and(|folder| other(self.shared.get(folder)))
    }

    /// Whether that is so of at least half of the members of a family.
    fn share(&self, members: &[usize]) -> bool {
        2 * members.iter().filter(|&&i| self.has(i)).count() >= members.len()
    }
}

/// The label maps among the members of a family; none if there are none among its samples.
fn label_maps(family: &[usize], images: &[PathBuf]) -> Result<Vec<usize>> {
    // Multiples of the golden ratio fall into step with no pattern of names.
    let sample =
        |k: usize| &family[((k as f64 * 0.618_034).fract() * family.len() as f64) as usize];
    let is_map = |i: &usize| -> Result<bool> {
        stop::check()?;
        Ok(is_label_map(&images[*i]))
    };
    if family.len() > SAMPLES {
        let samples: Vec<bool> = (0..SAMPLES).map(|k| is_map(sample(k))).collect::<Result<_>>()?;
        if !samples.contains(&true) {
            return Ok(Vec::new());
        }
    }
    let all: Vec<bool> = family.par_iter().map(is_map).collect::<Result<_>>()?;
    Ok(family.iter().zip(all).filter_map(|(&i, map)| map.then_some(i)).collect())
}

/// Whether few colours make up most of a picture. What cannot be read is none, so that whoever
/// reads it says why.
fn is_label_map(path: &Path) -> bool {
    if !decode::may_be_labels(path) {
        return false;
    }
    let Ok(pixels) = decode::some_pixels(path, PIXELS) else { return false };
    let mut counts: HashMap<&[u8], usize> = HashMap::new();
    pixels.colours().for_each(|colour| *counts.entry(colour).or_default() += 1);
    let total: usize = counts.values().sum();
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let covered: usize = counts.iter().take(COLOURS).sum();
    let enough = if pixels.smeared { COVERED_IN_JPEG } else { COVERED };
    covered as f64 >= enough * total as f64
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

/// The endings of a name that begin behind something that is neither letter nor digit.
fn endings(name: &str) -> impl Iterator<Item = &str> {
    let parted = name.char_indices().filter(|(_, c)| !c.is_alphanumeric());
    parted.map(|(at, c)| &name[at + c.len_utf8()..]).filter(|ending| !ending.is_empty())
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
        assert_eq!(endings("2_0001-é_").collect::<Vec<_>>(), ["0001-é_", "é_"]);
    }
}
