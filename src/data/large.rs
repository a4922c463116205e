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
