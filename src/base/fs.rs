//! Files that are whole or not there: each is written beside its place, synced to the disk, and
//! renamed.

use std::collections::BTreeSet;
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
        File::open(dir).map_or(Ok(()), |dir| sync(&dir))
    };
    let started = Instant::now();
    work().map_err(|e| Error::io(path, e))?;
    let (path, bytes) = (path.display(), path.metadata().map_or(0, |file| file.len()));
    detail(format_args!("wrote {path}: {bytes} bytes in {:.2} s", started.elapsed().as_secs_f64()));
    Ok(())
}

/// Waits until a file is on the disk, on file systems that can tell.
fn sync(file: &File) -> std::io::Result<()> {
    let cannot = [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP].map(|errno| errno.raw_os_error());
    match file.sync_all() {
        Err(e) if e.raw_os_error().is_some_and(|errno| cannot.contains(&errno)) => Ok(()),
        synced => synced,
    }
}

/// Removes the unfinished files that killed writers left in `dir`. Nobody else may be writing
/// there.
pub fn remove_unfinished(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
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
        let (path, unfinished) =
            (entry.path(), entry.file_name().to_string_lossy().starts_with(prefix));
        // If the lock can be taken, the writer has ended, or has made the file or folder just now
        // and not locked it yet; in that case it is still empty.
        let Some(file) =
            File::open(&path).ok().filter(|file| unfinished && file.try_lock().is_ok())
        else {
            continue;
        };
        let Ok(stat) = file.metadata() else { continue };
        let holds = match std::fs::read_dir(&path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(_) => stat.len() > 0,
        };
        if holds {
            remove(&path);
            freed += 512 * stat.blocks();
        }
    }
    freed
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
        std::fs::write(dir.path().join(".writing-x7"), b"half").unwrap();
        remove_unfinished(dir.path());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
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
