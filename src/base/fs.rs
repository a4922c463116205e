//! Files that are whole or not there: each is written beside its place, synced to the disk, and
//! renamed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use rustix::io::Errno;

use crate::base::say::detail;
use crate::base::{Error, Result};

/// The prefix of the names of unfinished files.
pub const UNFINISHED: &str = ".writing-";

/// The temporary files and folders of this process, until they are renamed or removed.
static TEMPORARY: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn temporary() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    TEMPORARY.lock().unwrap_or_else(|e| e.into_inner())
}

/// An entry in the list of temporary paths: while it lives, [`abandon`] removes what lies at its
/// path.
pub struct Listed(PathBuf);

impl Drop for Listed {
    fn drop(&mut self) {
        temporary().remove(&self.0);
    }
}

/// Makes a temporary file or folder that [`abandon`] removes unless the [`Listed`] was dropped
/// before.
pub fn listed<T: AsRef<Path>>(
    make: impl FnOnce() -> std::io::Result<T>,
) -> std::io::Result<(T, Listed)> {
    let mut list = temporary();
    let made = make()?;
    let path = made.as_ref().to_path_buf();
    list.insert(path.clone());
    Ok((made, Listed(path)))
}

/// Removes all temporary files and folders, for a process that is about to end without unwinding.
/// Threads that still run can begin no new ones: they wait for the list for ever.
pub fn abandon() {
    let list = temporary();
    list.iter().for_each(|path| remove(path));
    std::mem::forget(list);
}

/// Removes a file or a folder. Failures are ignored: what stays only takes room.
fn remove(path: &Path) {
    let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir_all(path));
}

/// Whether a path is that of a pipe, a device or the like, which is written to and not replaced.
pub fn is_stream(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| !file.is_file() && !file.is_dir())
}

/// Writes the file `path` with what `fill` writes. It goes through a temporary file in the same
/// folder, so that a kill or a full disk leaves the old file as it was. A [stream](is_stream) gets
/// the bytes as they come.
pub fn write_atomic(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let mut fill = Some(fill);
    write_by(path, &mut |out| fill.take().expect("called once")(out))
}

/// As [`write_atomic`], compiled once.
fn write_by(
    path: &Path,
    fill: &mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut work = || -> std::io::Result<()> {
        if is_stream(path) {
            let mut out = BufWriter::new(File::options().write(true).open(path)?);
            fill(&mut out)?;
            return out.flush();
        }
        // Temporary files can be read by their owner only; this one by whoever the umask allows.
        let usual = std::fs::Permissions::from_mode(0o666);
        let named =
            || tempfile::Builder::new().prefix(UNFINISHED).permissions(usual).tempfile_in(dir);
        let (mut temp, _listed) = listed(named)?;
        let mut out = BufWriter::with_capacity(1 << 20, temp.as_file_mut());
        fill(&mut out)?;
        out.flush()?;
        drop(out);
        sync(temp.as_file())?;
        temp.persist(path).map_err(|e| e.error)?;
        // The rename itself must reach the disk as well; a folder that may not be read cannot be
        // asked for it.
        File::open(dir).map_or(Ok(()), |dir| sync_folder(&dir))
    };
    let started = Instant::now();
    work().map_err(|e| Error::io(path, e))?;
    let (path, bytes) = (path.display(), path.metadata().map_or(0, |file| file.len()));
    detail(format_args!("wrote {path}: {bytes} bytes in {:.2} s", started.elapsed().as_secs_f64()));
    Ok(())
}

/// Waits until a file is on the disk, on file systems that can tell.
pub fn sync(file: &File) -> std::io::Result<()> {
    let cannot = [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP];
    file.sync_all().or_else(|e| if is_one_of(&e, &cannot) { Ok(()) } else { Err(e) })
}

/// Waits until the names in a folder are on the disk. Many file systems refuse this in ways of
/// their own, so that only an error of the disk counts.
fn sync_folder(folder: &File) -> std::io::Result<()> {
    let fatal = [Errno::IO, Errno::NOSPC, Errno::DQUOT];
    folder.sync_all().or_else(|e| if is_one_of(&e, &fatal) { Err(e) } else { Ok(()) })
}

/// Whether an error of the system has one of these numbers.
pub fn is_one_of(e: &std::io::Error, numbers: &[Errno]) -> bool {
    numbers.iter().any(|errno| e.raw_os_error() == Some(errno.raw_os_error()))
}

/// Whether a name is that of a temporary file or folder: `prefix` and the six letters and digits
/// that `tempfile` puts behind it. What users have under a similar name is theirs.
fn is_unfinished(name: &OsStr, prefix: &str) -> bool {
    let drawn = name.to_str().and_then(|name| name.strip_prefix(prefix));
    drawn.is_some_and(|drawn| drawn.len() == 6 && drawn.chars().all(|c| c.is_ascii_alphanumeric()))
}

/// Removes the unfinished files that killed writers left in `dir`. Nobody else may be writing
/// there.
pub fn remove_unfinished(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if is_unfinished(&entry.file_name(), UNFINISHED) {
            remove(&entry.path());
        }
    }
}

/// Like [`remove_unfinished`], but for a folder that other processes write to, and for files and
/// folders that were made with `prefix`: writers hold a lock on theirs, and what is locked stays.
/// Returns the number of bytes that were freed.
pub fn remove_abandoned(dir: &Path, prefix: &str) -> u64 {
    let mut freed = 0;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        // A pipe would be waited for until somebody writes to it.
        let kind = entry.file_type().ok().filter(|kind| kind.is_file() || kind.is_dir());
        if kind.is_none() || !is_unfinished(&entry.file_name(), prefix) {
            continue;
        }
        // If the lock can be taken, the writer has ended, or has made the file or folder just now
        // and not locked it yet; in that case it is still empty.
        let locked = File::open(&path).ok().filter(|file| file.try_lock().is_ok());
        let Some(stat) = locked.as_ref().and_then(|file| file.metadata().ok()) else { continue };
        let holds = match std::fs::read_dir(&path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(_) => stat.len() > 0,
        };
        if holds {
            let bytes = taken(&path);
            remove(&path);
            freed += bytes - taken(&path);
        }
    }
    freed
}

/// The bytes of the disk that a file, or the files in a folder, take. Links are not followed.
pub fn taken(path: &Path) -> u64 {
    match path.symlink_metadata() {
        Ok(stat) if stat.is_dir() => {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| taken(&entry.path())).sum()
        }
        Ok(stat) => 512 * stat.blocks(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_the_usual_permissions_and_leftovers_go() {
        let dir = tempfile::tempdir().unwrap();
        let mode =
            |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        write_atomic(&dir.path().join("a"), |w| w.write_all(b"a")).unwrap();
        std::fs::write(dir.path().join("usual"), b"a").unwrap();
        assert_eq!(mode("a"), mode("usual"));
        std::fs::write(dir.path().join(".writing-aZ09bx"), b"half").unwrap();
        std::fs::write(dir.path().join(".writing-notes"), b"of the user").unwrap();
        remove_unfinished(dir.path());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
        assert!(dir.path().join(".writing-notes").exists());
    }

    #[test]
    fn only_what_was_abandoned_is_removed_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let filled = |name: &str| {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join("scene"), vec![1; 100_000]).unwrap();
        };
        ["x-abandn", "x-locked", "x-notes"].into_iter().for_each(filled);
        std::fs::write(at("x-file00"), vec![1; 50_000]).unwrap();
        std::os::unix::fs::symlink(at("x-notes"), at("x-linked")).unwrap();
        let pipe = std::process::Command::new("mkfifo").arg(at("x-pipe00")).status().unwrap();
        assert!(pipe.success());
        let lock = File::open(at("x-locked")).unwrap();
        lock.lock().unwrap();
        let freed = remove_abandoned(dir.path(), "x-");
        assert!((150_000..200_000).contains(&freed), "{freed}");
        let names = std::fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["x-linked", "x-locked", "x-notes", "x-pipe00"]);
    }

    #[test]
    fn what_is_temporary_is_known_until_it_is_whole_or_gone() {
        let dir = tempfile::tempdir().unwrap();
        let known = |path: &Path| temporary().contains(path);
        let (folder, listed) = listed(|| tempfile::tempdir_in(dir.path())).unwrap();
        write_atomic(&folder.path().join("a"), |w| {
            let unfinished = std::fs::read_dir(folder.path())?.next().unwrap()?.path();
            assert!(known(&unfinished));
            w.write_all(b"a")
        })
        .unwrap();
        assert!(known(folder.path()) && !known(&folder.path().join("a")));
        remove(folder.path());
        assert!(!folder.path().exists());
        drop(listed);
        assert!(!known(folder.path()));
    }

    #[test]
    fn a_pipe_gets_the_bytes_and_stays_a_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read(pipe).unwrap()
        });
        write_atomic(&pipe, |w| w.write_all(b"all of it")).unwrap();
        assert!(is_stream(&pipe), "a file has taken the pipe's place");
        assert_eq!(reader.join().unwrap(), b"all of it");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_debris() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_atomic(&path, |w| w.write_all(b"old")).unwrap();
        let failed = write_atomic(&path, |w| {
            w.write_all(b"half")?;
            Err(std::io::ErrorKind::StorageFull.into())
        });
        assert!(failed.unwrap_err().to_string().contains("free some space"));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
