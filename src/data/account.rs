//! The account of a folder: what it holds beside the images that are used, by what it is.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

/// The remedies for files that may show what a user wants to learn from, but are not read.
const CONVERT: &str = "convert to JPEG or PNG";
const UNPACK: &str = "unpack first";
const FRAMES: &str = "write frames as JPEG or PNG";

/// The endings of files that hold pictures and are not read, with what helps.
const UNREAD: [(&str, &str); 6] = [
    ("heic heif hif avif jxl jp2 j2k jpf jpx jxr wdp gif svg svgz psd psb xcf ai eps", CONVERT),
    ("ico hdr exr ppm pgm pbm pnm pam tga dds qoi dcm pdf npy npz h5 hdf5 tfrecord", CONVERT),
    ("cr2 cr3 crw nef nrw arw srf sr2 dng raf orf rw2 pef srw 3fr iiq x3f kdc dcr mrw", CONVERT),
    ("erf mos rwl gpr mef fff raw", CONVERT),
    ("mp4 m4v mov avi mkv webm mpg mpeg mts m2ts 3gp wmv flv insv", FRAMES),
    ("zip tar gz tgz bz2 xz zst 7z rar", UNPACK),
];

/// The endings of files that are not whole yet.
const UNFINISHED: [&str; 7] =
    ["part", "partial", "crdownload", "download", "opdownload", "filepart", "aria2"];

/// Names that file servers, systems and cameras give to what they keep beside files of users, in
/// lower case.
const SYSTEMS: [&str; 20] = [
    "@eadir",
    "@tmp",
    "@recycle",
    "@recently-snapshot",
    "#recycle",
    "#snapshot",
    "~snapshot",
    "network trash folder",
    "temporary items",
    "$recycle.bin",
    "recycled",
    "recycler",
    "system volume information",
    "lost+found",
    "__macosx",
    "thmbnl",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "picasa.ini",
];

/// What [`Account::pass`] calls files of systems and of picie itself.
pub const BY_SYSTEMS: &str = "left by systems and cameras";
pub const BY_PICIE: &str = "written by picie";

/// What [`Account::leave`] calls label maps that lie beside photos.
pub const LABEL_MAPS: &str = "label maps";

/// The number of kinds that a line names of what nobody misses.
const NAMED: usize = 8;

/// What a folder holds beside the images that are used.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Account {
    /// The number of things that a user may miss, by the remedy and by what they are.
    left_out: BTreeMap<String, BTreeMap<String, usize>>,
    /// The number of things that nobody wants to learn from, by what they are.
    passed_over: BTreeMap<String, usize>,
}

impl Account {
    /// Counts things that may be missed.
    pub fn leave(&mut self, count: usize, what: impl Into<String>, remedy: &str) {
        if count > 0 {
            *self.left_out.entry(remedy.into()).or_default().entry(what.into()).or_default() +=
                count;
        }
    }

    /// Counts things that nobody misses.
    pub fn pass(&mut self, count: usize, what: impl Into<String>) {
        if count > 0 {
            *self.passed_over.entry(what.into()).or_default() += count;
        }
    }

    /// Counts a file that is no image by its name.
    pub fn other(&mut self, path: &Path) {
        let ending = ending(path);
        match Known::of(&ending) {
            Some(Known::Unread(remedy)) => self.leave(1, ending.to_uppercase(), remedy),
            Some(Known::Unfinished) => self.leave(1, "unfinished downloads", "finish them"),
            Some(Known::OfSystems) => self.pass(1, BY_SYSTEMS),
            Some(Known::OldCopy) => self.pass(1, "old copies"),
            None => self.pass(1, named(&ending)),
        }
    }

    /// Whether label maps were left out.
    pub fn has_maps(&self) -> bool {
        self.left_out.values().any(|kinds| kinds.contains_key(LABEL_MAPS))
    }

    /// What else lies in a folder without images, in brackets for the error that says so.
    pub fn instead(&self) -> String {
        let parts = self.parts();
        if parts.is_empty() { String::new() } else { format!(" ({})", parts.join("; ")) }
    }

    /// Whether something may be missed.
    pub fn misses(&self) -> bool {
        !self.left_out.is_empty()
    }

    /// One line that says what became of the files of `root`, of which `read` images are used.
    /// `None`: there are only these.
    pub fn line(&self, root: &Path, read: usize) -> Option<String> {
        let parts = self.parts();
        let line = || format!("{}: {read} images; {}", root.display(), parts.join("; "));
        (!parts.is_empty()).then(line)
    }

    fn parts(&self) -> Vec<String> {
        let mut parts = Vec::new();
        let left: Vec<String> = (self.left_out.iter())
            .map(|(remedy, kinds)| format!("{} ({remedy})", counted(kinds, usize::MAX)))
            .collect();
        if !left.is_empty() {
            parts.push(format!("left out: {}", left.join(", ")));
        }
        if !self.passed_over.is_empty() {
            parts.push(format!("passed over: {}", counted(&self.passed_over, NAMED)));
        }
        parts
    }
}

/// What the ending of a file tells of it, apart from images.
enum Known {
    /// It holds a picture and is not read; the remedy.
    Unread(&'static str),
    Unfinished,
    OfSystems,
    OldCopy,
}

impl Known {
    fn of(ending: &str) -> Option<Self> {
        let unread = UNREAD.iter().find(|(endings, _)| endings.split(' ').any(|e| e == ending));
        match ending {
            _ if unread.is_some() => unread.map(|(_, remedy)| Known::Unread(remedy)),
            _ if UNFINISHED.contains(&ending) => Some(Known::Unfinished),
            "thm" | "ctg" => Some(Known::OfSystems),
            _ if ending.ends_with('~') => Some(Known::OldCopy),
            _ => None,
        }
    }
}

/// What stands behind the last point of a file's name, in lower case.
fn ending(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.rsplit_once('.').map_or(String::new(), |(_, ending)| ending.into())
}

/// What a line calls files of this ending.
fn named(ending: &str) -> String {
    if ending.is_empty() { "without an ending".into() } else { format!(".{ending}") }
}

/// What lies in a folder, by the endings of names alone.
pub fn contents(dir: &Path) -> std::io::Result<String> {
    let mut kinds = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let kind = if path.is_dir() { "folders".into() } else { named(&ending(&path)) };
        *kinds.entry(kind).or_default() += 1;
    }
    Ok(if kinds.is_empty() { "nothing".into() } else { counted(&kinds, NAMED) })
}

/// Whether the ending of a file tells what it is, if it is no image that is read.
pub fn is_known(path: &Path) -> bool {
    Known::of(&ending(path)).is_some()
}

/// "30 HEIC, 2 GIF", the most frequent first, of which `most` are named.
fn counted(kinds: &BTreeMap<String, usize>, most: usize) -> String {
    let mut kinds: Vec<(&String, &usize)> = kinds.iter().collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let (named, rest) = kinds.split_at(kinds.len().min(most));
    let mut words: Vec<String> =
        named.iter().map(|(what, count)| format!("{count} {what}")).collect();
    if !rest.is_empty() {
        words.push(format!("{} others", rest.iter().map(|(_, count)| **count).sum::<usize>()));
    }
    words.join(", ")
}

/// Whether a file or folder of this name is a system's, and not a user's.
pub fn of_a_system(name: &str) -> bool {
    name.starts_with('.')
        || name.starts_with("~$")
        || SYSTEMS.contains(&name.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_became_of_each_file() {
        let root = Path::new("photos");
        let mut account = Account::default();
        assert_eq!((account.line(root, 3), account.misses()), (None, false));
        for name in ["a.txt", "b.TXT", "c", "IMG.THM", "d.jpg~"] {
            account.other(Path::new(name));
        }
        assert!(!account.misses());
        for name in ["1.HEIC", "2.heic", "3.NEF", "clip.MOV", "more.tar", "x.jpg.crdownload"] {
            account.other(Path::new(name));
        }
        assert!(account.misses());
        let line = account.line(root, 3).unwrap();
        assert_eq!(
            line,
            "photos: 3 images; left out: 2 HEIC, 1 NEF (convert to JPEG or PNG), 1 unfinished \
             downloads (finish them), 1 TAR (unpack first), 1 MOV (write frames as JPEG or PNG); \
             passed over: 2 .txt, 1 left by systems and cameras, 1 old copies, 1 without an ending"
        );
        (0..20).for_each(|i| account.other(Path::new(&format!("x.e{i}"))));
        assert!(account.line(root, 3).unwrap().ends_with(" others"));
        // What may be missed is always named.
        let kinds = ["heif", "avif", "jxl", "jp2", "gif", "svg", "psd", "exr", "cr2", "dng"];
        kinds.iter().for_each(|kind| account.other(Path::new(&format!("x.{kind}"))));
        let line = account.line(root, 3).unwrap();
        assert!(kinds.iter().all(|kind| line.contains(&kind.to_uppercase())), "{line}");
    }

    #[test]
    fn names_of_systems_are_known_in_any_case() {
        for name in [
            ".DS_Store",
            "._x.jpg",
            "@eaDir",
            "THUMBS.DB",
            "$Recycle.Bin",
            "~$a.jpg",
            "~snapshot",
            "Network Trash Folder",
            "Temporary Items",
            "RECYCLED",
            "THMBNL",
        ] {
            assert!(of_a_system(name), "{name}");
        }
        for name in ["x.jpg", "@home", "#1", "Thumbs", "recycle"] {
            assert!(!of_a_system(name), "{name}");
        }
    }
}
