//! A photo that is to be segmented: its size, that of the network's input for it, and its outputs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::base::fs::{Listed, is_stream, listed};
use crate::base::{Error, Result, stop};
use crate::cli::segment::files::Files;
use crate::data::decode;

/// The aspect ratios, long side to short side, that the network's input may have: those of cameras,
/// then steps of a third.
///
/// A GPU must plan convolutions for each shape of input, so photos of any sizes share a few shapes:
/// at most 7 if no photo is longer than twice its short side, else at most 17. A photo is stretched
/// along its long side to the nearest aspect ratio, by 17 % at most (from `--size 256` on, and up
/// to the last ratio). Photos of 4 : 3, 3 : 2 and 16 : 9 are stretched by 4 % at most, because of
/// rounding to a multiple of 32.
const ASPECTS: [f64; 9] = [1.0, 4.0 / 3.0, 1.5, 1.778, 2.370, 3.160, 4.214, 5.619, 7.492];

/// How often a pipe that nobody writes to is left to see whether the user asked to stop.
const LOOK: Duration = Duration::from_millis(100);

/// The long side of the input for a photo of this aspect ratio: among the multiples of 32 that
/// belong to [`ASPECTS`] at the short side `size`, the one nearest to `size` times `aspect`.
fn long_side(size: usize, aspect: f64) -> usize {
    let stretch = |side: usize| (side as f64 / (size as f64 * aspect)).ln().abs();
    let sides = ASPECTS.map(|aspect| (size as f64 * aspect / 32.0).round() as usize * 32);
    sides.into_iter().min_by(|&a, &b| stretch(a).total_cmp(&stretch(b))).expect("there are aspects")
}

/// Height and width of the network's input.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Input {
    pub h: usize,
    pub w: usize,
}

/// A temporary file, and its entry in the list of those.
type Copied = (NamedTempFile, Listed);

/// A photo: its size, the sizes of the network's inputs for it, and the paths of its outputs.
pub struct Photo {
    pub path: PathBuf,
    /// What came through a pipe.
    copy: Option<Copied>,
    pub width: usize,
    pub height: usize,
    /// Height and width of the network's input at each scale.
    pub inputs: Vec<Input>,
    pub files: Files,
}

impl Photo {
    /// Reads the size of a photo. The inputs' short sides are `sizes` of the photo's; their long
    /// sides follow from the nearest of [`ASPECTS`], so that a strip of a few pixels' height is
    /// squeezed instead of taking all memory.
    pub fn look(
        path: &Path,
        files: Files,
        exif: bool,
        sizes: impl Fn(usize) -> Vec<usize>,
    ) -> Result<Self> {
        // A pipe can be read once only, and a photo is read twice.
        let copy = if is_stream(path) { Some(copied(path)?) } else { None };
        let file = copy.as_ref().map_or(path, |copy| copy.0.path());
        let (width, height) = decode::size(file, exif).map_err(|e| e.at(path))?;
        let input = |size: usize| {
            let long = |long: usize, short: usize| long_side(size, long as f64 / short as f64);
            if width < height {
                Input { h: long(height, width), w: size }
            } else {
                Input { h: size, w: long(width, height) }
            }
        };
        let inputs = sizes(width.min(height)).into_iter().map(input).collect();
        Ok(Photo { path: path.to_path_buf(), copy, width, height, inputs, files })
    }

    /// The file to read the photo from.
    pub fn file(&self) -> &Path {
        self.copy.as_ref().map_or(&self.path, |copy| copy.0.path())
    }

    /// The number of its pixels.
    pub fn pixels(&self) -> usize {
        self.width * self.height
    }
}

/// Reads a pipe to its end, into a temporary file. Nobody may ever write to it, so it is read on a
/// thread of its own, which a request to stop leaves behind.
fn copied(pipe: &Path) -> Result<Copied> {
    let io = |e| Error::io(pipe, e);
    let copy = listed(NamedTempFile::new).map_err(io)?;
    let (from, mut to) = (pipe.to_path_buf(), copy.0.reopen().map_err(io)?);
    let (send, done) = channel();
    let read = move || {
        let _ = send.send(File::open(from).and_then(|mut pipe| std::io::copy(&mut pipe, &mut to)));
    };
    thread::Builder::new().spawn(read).map_err(io)?;
    loop {
        match done.recv_timeout(LOOK) {
            Ok(read) => return read.map(|_| copy).map_err(io),
            Err(RecvTimeoutError::Timeout) => stop::check()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::file(pipe, "its reader ended", "try again"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_of_any_aspect_share_few_shapes() {
        for size in [256, 320, 352, 480, 512, 640] {
            let shapes = |longest: f64| {
                let aspects = (0..=1000).map(|i| 1.0 + (longest - 1.0) * f64::from(i) / 1000.0);
                let sides: Vec<(f64, usize)> =
                    aspects.map(|aspect| (aspect, long_side(size, aspect))).collect();
                for &(aspect, side) in &sides {
                    let stretch = side as f64 / (size as f64 * aspect);
                    assert!(
                        side % 32 == 0 && (stretch.ln().abs()) <= 1.175f64.ln(),
                        "{size}: {aspect} stretched by {stretch}"
                    );
                }
                sides
                    .into_iter()
                    .map(|(_, side)| side)
                    .collect::<std::collections::BTreeSet<_>>()
                    .len()
            };
            // All shapes but the first occur twice, as landscape and as portrait.
            assert_eq!((shapes(2.0), shapes(7.5)), (4, 9), "{size}");
            for aspect in [4.0 / 3.0, 1.5, 16.0 / 9.0] {
                let stretch = long_side(size, aspect) as f64 / (size as f64 * aspect);
                assert!((stretch - 1.0).abs() <= 0.04, "{size}: {aspect} stretched by {stretch}");
            }
        }
        assert_eq!((long_side(32, 3000.0), long_side(320, 1.0)), (224, 320));
    }
}
