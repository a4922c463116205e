//! Pictures of very many pixels: how many are read, and the memory that they take meanwhile.

use std::cell::Cell;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::{Error, Result, memory};

/// The most pixels of a picture or label map: 16384², for phones take photos of 200 megapixels. A
/// header may claim any number in a file of any length, so this is checked before memory is taken.
pub const MOST_PIXELS: u64 = 1 << 28;

/// Pictures of more pixels than this are read one at a time: each takes hundreds of megabytes.
const LARGE: u64 = 1 << 25;

/// Pictures of fewer pixels than this, or files of fewer bytes, take no memory worth looking at.
pub const SMALL: u64 = 1 << 20;

/// The turn to read a large picture.
static READING: Mutex<()> = Mutex::new(());

thread_local! {
    /// Whether this thread has the turn: it may read a picture and its label map.
    static MINE: Cell<bool> = const { Cell::new(false) };
}

/// While it lives no other thread reads a large picture.
#[derive(Debug, Default)]
pub struct Alone(Option<MutexGuard<'static, ()>>);

impl Drop for Alone {
    fn drop(&mut self) {
        if self.0.is_some() {
            MINE.set(false);
        }
    }
}

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
pub fn check_claim(path: &Path, (width, height): (u64, u64), bytes: u64, most: u64) -> Result<()> {
    if width * height <= most.saturating_mul(bytes) {
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
/// much is not free. It need not wait if it is small, and half of what is free would do for as many
/// like it as there are threads.
pub fn alone(path: &Path, (width, height): (u64, u64), bytes: u64) -> Result<Alone> {
    if width * height < SMALL {
        return Ok(Alone(None));
    }
    let all = bytes.saturating_mul(rayon::current_num_threads() as u64);
    let crowded = || memory::available().is_some_and(|free| all > free / 2);
    let turn = (!MINE.get() && (width * height > LARGE || crowded())).then(|| {
        let turn = READING.lock().unwrap_or_else(PoisonError::into_inner);
        MINE.set(true);
        turn
    });
    let turn = Alone(turn);
    memory::check(path, bytes)?;
    Ok(turn)
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
        assert!(first.0.is_some());
        // A picture's label map has the turn of its picture.
        drop(alone(Path::new("labels"), large, 0).unwrap());
        assert!(MINE.get() && alone(Path::new("b"), (4000, 3000), 0).unwrap().0.is_none());
        let (told, heard) = channel();
        std::thread::spawn(move || {
            let small = alone(Path::new("c"), (4000, 3000), 0).unwrap();
            let _second = alone(Path::new("d"), large, 0).unwrap();
            told.send(small.0.is_none()).unwrap();
        });
        assert!(heard.recv_timeout(Duration::from_millis(50)).is_err(), "two were read at once");
        drop(first);
        assert!(heard.recv_timeout(Duration::from_secs(60)).unwrap());
        assert!(!MINE.get());
    }

    #[test]
    fn smaller_ones_wait_where_a_thread_each_would_take_too_much() {
        let third = memory::available().unwrap() / 3;
        let two = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let turn = |bytes| alone(Path::new("a"), (4000, 3000), bytes).unwrap().0.is_some();
        assert_eq!(two.install(|| [turn(third), turn(third / 8)]), [true, false]);
    }

    #[test]
    fn a_picture_that_memory_does_not_hold_is_left_out() {
        let e = alone(Path::new("a.jpg"), (16000, 16000), 1 << 60).unwrap_err().to_string();
        assert!(e.starts_with("a.jpg: to read it takes 1099511627776 MiB of memory, and "), "{e}");
    }
}
