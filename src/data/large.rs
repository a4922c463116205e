//! Pictures of very many pixels: how many are read, and the memory that they take meanwhile.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::{Error, Result, memory};

/// The most pixels of a picture or label map: 16384², for phones take photos of 200 megapixels. A
/// header may claim any number in a file of any length, so this is checked before memory is taken.
pub const MOST_PIXELS: u64 = 1 << 28;

/// Pictures of more pixels than this are read one at a time: each takes hundreds of megabytes.
const LARGE: u64 = 1 << 25;

/// The picture that is being read, if it is a large one.
static READING: Mutex<()> = Mutex::new(());

/// While it lives no other large picture is read.
pub type Alone = Option<MutexGuard<'static, ()>>;

/// Fails if a picture or label map has more pixels than are read.
pub fn check(path: &Path, (width, height): (u64, u64)) -> Result<()> {
    if width * height <= MOST_PIXELS {
        return Ok(());
    }
    let most = MOST_PIXELS / 1_000_000;
    let what = format!("{width} × {height} pixels, and at most {most} megapixels are read");
    Err(Error::file(path, what, "make it smaller, or cut it into tiles"))
}

/// Fails if a file of `bytes` bytes cannot hold so many pixels, of which its kind packs at most
/// `most` into a byte: then its header is all there is, and no memory is taken for it.
pub fn check_claim(
    path: &Path,
    (width, height): (u64, u64),
    bytes: usize,
    most: u64,
) -> Result<()> {
    if width * height <= most * bytes as u64 {
        return Ok(());
    }
    let what = format!("cut short: {width} × {height} pixels do not fit into its {bytes} bytes");
    Err(Error::file(path, what, "copy or download it again"))
}

/// Pixels that a byte of a PNG can hold at most: deflate makes 1032 bytes of one, and a byte has
/// eight pixels of one bit.
pub const PNG: u64 = 8 * 1032;

/// Pixels that a byte of a JPEG can hold at most: a bit for each block of 8 × 8.
pub const JPEG: u64 = 8 * 64;

/// Waits for its turn to read a picture that takes `bytes` bytes of memory meanwhile. Fails if that
/// much is not free. Small ones need not wait.
pub fn alone(path: &Path, (width, height): (u64, u64), bytes: u64) -> Result<Alone> {
    if width * height <= LARGE {
        return Ok(None);
    }
    let turn = READING.lock().unwrap_or_else(PoisonError::into_inner);
    memory::check(path, bytes)?;
    Ok(Some(turn))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn large_pictures_are_read_one_at_a_time_and_small_ones_at_once() {
        let large = (8000, 8000);
        let first = alone(Path::new("a"), large, 0).unwrap();
        assert!(first.is_some() && alone(Path::new("b"), (4000, 3000), 0).unwrap().is_none());
        let (told, heard) = channel();
        std::thread::spawn(move || {
            let _second = alone(Path::new("c"), large, 0).unwrap();
            told.send(()).unwrap();
        });
        assert!(heard.recv_timeout(Duration::from_millis(50)).is_err(), "two were read at once");
        drop(first);
        heard.recv_timeout(Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn a_picture_that_memory_does_not_hold_is_left_out() {
        let e = alone(Path::new("a.jpg"), (16000, 16000), 1 << 60).unwrap_err().to_string();
        assert!(e.starts_with("a.jpg: to read it takes 1099511627776 MiB of memory, and "), "{e}");
    }
}
