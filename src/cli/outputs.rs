//! What a command is about to write, held against what it reads: before the first byte is written,
//! and by file, since one file may have many names.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::base::fs::{UNFINISHED, is_stream};
use crate::base::{Error, Result};
use crate::data;

/// A file that is to be written.
pub struct Output {
    pub path: PathBuf,
    /// The flag or the photo that it is the output of.
    pub of: String,
}

impl Output {
    pub fn new(path: impl Into<PathBuf>, of: impl ToString) -> Self {
        Output { path: path.into(), of: of.to_string() }
    }
}

/// A file, whatever it is called: by its number or, if it is still to be made, by its folder's
/// number and its name there. A number is unique on its device.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Id {
    There(u64, u64),
    New(u64, u64, OsString),
}

/// Fails if something would be written over an input or twice, or where nothing can be written.
/// `elsewhere` is the remedy.
pub fn check<'a>(
    outputs: &[Output],
    inputs: impl IntoIterator<Item = &'a Path>,
    elsewhere: &str,
) -> Result<()> {
    let (mut folders, mut files) = (BTreeMap::new(), BTreeMap::new());
    for output in outputs.iter().filter(|output| !is_stream(&output.path)) {
        // A file is replaced by another one, so its folder counts where it is there, too.
        let new = new(&output.path, &mut folders)?;
        let id = number(&output.path).map_or(new, |(device, file)| Id::There(device, file));
        if let Some(Output { of, path }) = files.insert(id, output) {
            let what =
                format!("{of} and {} would both be written to {}", output.of, path.display());
            return Err(Error::input(what, "rename one, or write them into two folders"));
        }
    }
    if !files.keys().any(|id| matches!(id, Id::There(..))) {
        return Ok(());
    }
    for input in inputs {
        let Some((device, file)) = number(input) else { continue };
        if let Some(Output { path, of }) = files.get(&Id::There(device, file)) {
            let what = format!(
                "the output {} of {of} would be written over {}",
                path.display(),
                input.display()
            );
            return Err(Error::input(what, elsewhere));
        }
    }
    Ok(())
}

/// Fails if nothing can be written under this name, or only over an image that picie did not draw.
pub fn check_place(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Err(e) if e.kind() == ErrorKind::InvalidFilename => Err(Error::io(path, e)),
        Err(_) => Ok(()),
        Ok(_) if path.is_dir() => Err(Error::io(path, ErrorKind::IsADirectory.into())),
        Ok(_) if !is_stream(path) && data::is_foreign(path) => Err(Error::file(
            path,
            "there is an image that picie did not draw",
            "write to another place, or move it away",
        )),
        Ok(_) => Ok(()),
    }
}

/// Fails if one of the files that picie writes together is there, but none of them says that picie
/// wrote it: `sign` is the one that does, a JSON object with these `keys`.
pub fn check_own(files: &[PathBuf], sign: &Path, keys: &[&str]) -> Result<()> {
    let Some(there) = files.iter().find(|file| file.symlink_metadata().is_ok()) else {
        return Ok(());
    };
    let signed =
        std::fs::read(sign).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    if signed.is_some_and(|signed| keys.iter().all(|key| signed.get(key).is_some())) {
        return Ok(());
    }
    let remedy = "name another folder, or move it away";
    Err(Error::file(there, "there is a file of this name that picie did not write", remedy))
}

/// Fails if a file is called what it will not be: its name must have one of these endings, or none.
pub fn check_name(path: &Path, flag: &str, what: &str, endings: &[&str]) -> Result<()> {
    let Some(ending) = path.extension() else { return Ok(()) };
    if endings.iter().any(|known| ending.eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    let better = path.with_extension(endings[0]);
    Err(Error::input(
        format!("{flag} {}: {what} is written", path.display()),
        format!("call it {}", better.display()),
    ))
}

/// The device and the number of a file. `None`: there is no such file.
fn number(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|file| (file.dev(), file.ino()))
}

/// The identity that a file has when it is made. Its folder is tried once: `folders` holds
/// whether names that differ in case are one there.
fn new(path: &Path, folders: &mut BTreeMap<(u64, u64), bool>) -> Result<Id> {
    let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (device, file) = folder
        .metadata()
        .map(|folder| (folder.dev(), folder.ino()))
        .map_err(|e| Error::io(folder, e))?;
    let one = match folders.get(&(device, file)) {
        Some(one) => *one,
        None => *folders.entry((device, file)).or_insert(cases_are_one(folder)?),
    };
    let name = path.file_name().unwrap_or_default();
    let name = if one { name.to_string_lossy().to_lowercase().into() } else { name.to_os_string() };
    Ok(Id::New(device, file, name))
}

/// Makes a file in a folder, and removes it. Returns whether it was also found by its name in
/// capitals, as on disks of other systems. Fails if nothing can be written there.
fn cases_are_one(folder: &Path) -> Result<bool> {
    let trial = tempfile::Builder::new().prefix(UNFINISHED).suffix("-x").tempfile_in(folder);
    let trial = trial.map_err(|e| Error::io(folder, e))?;
    let name = trial.path().file_name().unwrap_or_default().to_ascii_uppercase();
    Ok(folder.join(name).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_and_not_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("photo.png"), "x").unwrap();
        std::fs::hard_link(at("photo.png"), at("hard.png")).unwrap();
        std::os::unix::fs::symlink(at("photo.png"), at("soft.png")).unwrap();
        std::fs::create_dir(at("sub")).unwrap();
        let said = |names: &[&str]| {
            let outputs: Vec<Output> = names.iter().map(|n| Output::new(at(n), n)).collect();
            let done = check(&outputs, [&*at("photo.png"), &*at("gone.png")], "go elsewhere");
            done.err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert_eq!(said(&["/dev/null", "/dev/null"]), "");
        assert_eq!(said(&["new.png", "NEW.png", "sub/new.png", "gone.png"]), "");
        for over in ["photo.png", "hard.png", "soft.png", "sub/../photo.png"] {
            assert!(
                said(&[over]).ends_with("photo.png; go elsewhere"),
                "{over}: {}",
                said(&[over])
            );
        }
        assert!(said(&["a.png", "sub/../a.png"]).contains("would both be written to"));
        // The folder of a file that is there counts, too: here nobody may write.
        assert!(said(&["/proc/version"]).starts_with("/proc: "), "{}", said(&["/proc/version"]));
        assert!(said(&["none/a.png"]).contains("none: no such file or directory; check the path"));
        // Nothing stays of what was tried.
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
        let number = dir.path().metadata().map(|dir| (dir.dev(), dir.ino())).unwrap();
        let mut folders = BTreeMap::from([(number, true)]);
        assert_eq!(
            new(&at("A.png"), &mut folders).unwrap(),
            new(&at("a.PNG"), &mut folders).unwrap()
        );
    }

    #[test]
    fn places_that_cannot_be_written_to_or_are_taken_are_known_before() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let said =
            |name: &str| check_place(&at(name)).err().map(|e| e.to_string()).unwrap_or_default();
        std::fs::create_dir(at("sub")).unwrap();
        std::fs::write(at("empty.png"), "").unwrap();
        std::fs::write(at("old.csv"), "a,b").unwrap();
        let picture = image::RgbImage::new(3, 2);
        picture.save(at("drawn.png")).unwrap();
        picture.save_with_format(at("photo"), image::ImageFormat::Jpeg).unwrap();
        crate::report::pictures::write_rgb(&at("own.png"), &picture).unwrap();
        for free in ["new.png", "empty.png", "own.png", "old.csv", "/dev/null"] {
            assert_eq!(said(free), "", "{free}");
        }
        assert!(said("sub").ends_with("sub: is a directory; name a file, not a folder"));
        assert!(said(&"x".repeat(300)).ends_with("file name too long; use a shorter name"));
        for taken in ["drawn.png", "photo"] {
            assert!(said(taken).contains("an image that picie did not draw"), "{}", said(taken));
        }
    }

    #[test]
    fn files_of_others_are_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let files = [at("README.md"), at("config.json")];
        let check = || check_own(&files, &files[1], &["model", "id"]);
        assert!(check().is_ok());
        std::fs::write(at("README.md"), "mine").unwrap();
        let said = check().unwrap_err().to_string();
        assert!(
            said.contains("README.md: there is a file of this name that picie did not"),
            "{said}"
        );
        for other in ["[1]", "{}", "no JSON", "{\"model\": 1}"] {
            std::fs::write(at("config.json"), other).unwrap();
            assert!(check().is_err(), "{other}");
        }
        std::fs::write(at("config.json"), "{\"model\": 1, \"id\": 2}").unwrap();
        assert!(check().is_ok());
    }

    #[test]
    fn a_name_says_what_is_written() {
        let check = |name: &str| check_name(Path::new(name), "--out", "a PNG", &["png"]);
        assert!(check("a.PNG").is_ok() && check("a").is_ok());
        let said = check("b/a.jpg").unwrap_err().to_string();
        assert_eq!(said, "--out b/a.jpg: a PNG is written; call it b/a.png");
    }
}
