//! The files of a data set: the images below a folder, and the items that a layout makes of them.

use std::collections::HashSet;
use std::fs::{DirEntry, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::account::{self, Account};
use super::{decode, fates};
use crate::base::say::warn;
use crate::base::{Error, Result, stop};

/// The endings of image files. The first two lines are all of JPEGs.
const EXTENSIONS: [&str; 19] = [
    "jpg",
    "jpeg",
    "jpe",
    "jfif",
    "jfi",
    "jif",
    "pjpeg",
    "pjp", // from here on, of cameras and sites
    "mpo",
    "jps",
    "jpg_large",
    "jpg-large",
    "jpeg_large", //
    "png",
    "bmp",
    "dib",
    "webp",
    "tif",
    "tiff",
];

/// Called with (done, total) as a long pass over files proceeds, from many threads.
pub type OnProgress<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// One picture and, where the data set has one, its label map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The name results are listed under: file stem, or path below the root for a plain folder.
    pub id: String,
    pub image: PathBuf,
    pub label: Option<PathBuf>,
}

impl Item {
    /// Reads the picture as [`decode::rgb`] does, or as [`decode::rgb_of_label`] where there is a
    /// label map, whether that is used or not: it is one picture in every store.
    pub fn picture(&self, exif: bool) -> Result<decode::Rgb> {
        match &self.label {
            Some(label) => decode::rgb_of_label(&self.image, label, exif),
            None => decode::rgb(&self.image, exif),
        }
    }
}

/// The file name of `path` without its extension, which most layouts use as an item's id.
pub fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// What picie's PNGs say of themselves: a text chunk right behind the header.
pub const MARK: (&str, &str) = ("Software", "picie");

/// The image files at any depth below `dir`, sorted by path; everything else goes into the account.
/// Hidden files and folders, and what picie itself wrote, are passed over.
///
/// Errors: `dir` cannot be read. What cannot be read below it is told, counted and left out.
pub fn images(dir: &Path, account: &mut Account) -> Result<Vec<PathBuf>> {
    let mut walk = Walk { seen: HashSet::new(), found: Vec::new(), account };
    walk.folder(dir)?;
    let mut found = walk.found;
    found.sort();
    let stems: HashSet<String> = found.iter().map(|path| stem(path)).collect();
    let ours: Vec<bool> =
        found.par_iter().map(|path| is_ours(path, |stem| stems.contains(stem))).collect();
    account.pass(ours.iter().filter(|&&ours| ours).count(), account::BY_PICIE);
    Ok(found.into_iter().zip(ours).filter_map(|(path, ours)| (!ours).then_some(path)).collect())
}

struct Walk<'a> {
    /// The folders that were met, under their real paths.
    seen: HashSet<PathBuf>,
    found: Vec<PathBuf>,
    account: &'a mut Account,
}

impl Walk<'_> {
    fn folder(&mut self, dir: &Path) -> Result<()> {
        let io = |e| Error::io(dir, e);
        // Links to folders are followed, so a folder may be met twice, or contain itself.
        if !self.seen.insert(dir.canonicalize().map_err(io)?) {
            return Ok(());
        }
        stop::check()?;
        let entries = std::fs::read_dir(dir).and_then(|entries| entries.collect());
        let mut entries: Vec<DirEntry> = entries.map_err(io)?;
        // A folder that is met twice gets its own name, and not that of a link to it.
        let is_link = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_symlink());
        entries.sort_by_cached_key(|entry| (is_link(entry), entry.file_name()));
        for path in entries.iter().map(DirEntry::path) {
            if account::of_a_system(&path.file_name().unwrap_or_default().to_string_lossy()) {
                self.account.pass(1, account::BY_SYSTEMS);
            } else if !path.is_dir() {
                self.file(path);
            } else if is_run(&path) {
                self.account.pass(1, account::BY_PICIE);
            } else {
                match self.folder(&path) {
                    Err(e @ Error::File { .. }) => self.leave(&e, "unreadable folders"),
                    read => read?,
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf) {
        let image = is_image(&path);
        // To read a pipe would wait for a writer, for ever.
        if image && path.metadata().is_ok_and(|file| !file.is_file()) {
            let what = "not a file, but a pipe or the like";
            self.leave(&Error::file(path, what, "remove it"), "pipes or the like");
        } else if image {
            self.found.push(path);
        } else {
            self.account.other(&path);
        }
    }

    fn leave(&mut self, why: &Error, what: &str) {
        warn(format_args!("left out: {why}"));
        self.account.leave(1, what, "see above");
    }
}

/// Whether a file is an image by its ending or, where that tells nothing, by its first bytes.
fn is_image(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default();
    EXTENSIONS.iter().any(|known| ending.eq_ignore_ascii_case(known))
        || !account::is_known(path)
            && path.is_file()
            && image::guess_format(&head(path)).is_ok_and(fates::is_read)
}

/// Whether a folder below the one that is read holds a run of picie: its settings and what else it
/// writes, or the lock alone of one that begins.
fn is_run(dir: &Path) -> bool {
    let has = |name: &str| dir.join(name).is_file();
    let begins = || std::fs::read_dir(dir).is_ok_and(|entries| entries.count() == 1);
    match has("run.json") {
        true => ["run.lock", "metrics.jsonl", "checkpoint.safetensors"].into_iter().any(has),
        false => has("run.lock") && begins(),
    }
}

/// Whether picie wrote this picture: it says so, or is one of the pair that `picie segment` makes
/// of a photo. `known` knows the stems of all images.
fn is_ours(path: &Path, known: impl Fn(&str) -> bool) -> bool {
    if path.extension().is_none_or(|ending| !ending.eq_ignore_ascii_case("png")) {
        return false;
    }
    let name = stem(path);
    let other = |end, other| name.strip_suffix(end).map(|photo: &str| format!("{photo}{other}"));
    let other = other("-labels", "-overlay").or_else(|| other("-overlay", "-labels"));
    other.is_some_and(|name| known(&name)) || is_marked(&head(path))
}

/// Whether a PNG that begins so says that picie drew it.
fn is_marked(head: &[u8]) -> bool {
    let (key, value) = MARK;
    let mark = format!("tEXt{key}\0{value}");
    head.windows(mark.len()).any(|at| at == mark.as_bytes())
}

/// Whether a file is an image that picie did not draw.
pub fn is_foreign(path: &Path) -> bool {
    let head = head(path);
    image::guess_format(&head).is_ok() && !is_marked(&head)
}

/// The first bytes of a file; none if it cannot be read. What a PNG says of itself may stand behind
/// a palette of 768 bytes.
fn head(path: &Path) -> Vec<u8> {
    let mut head = Vec::new();
    let _ = File::open(path).and_then(|file| file.take(1024).read_to_end(&mut head));
    head
}
