//! The command `picie segment`, which segments each photo at its own size and aspect ratio.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use image::RgbImage;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::base::fs::{Listed, is_stream, listed};
use crate::base::say::warn;
use crate::base::{Error, Result, stop};
use crate::cli::args::SegmentArgs;
use crate::cli::engine::Chosen;
use crate::cli::limits::check_size;
use crate::cli::outputs::{self, Output};
use crate::cli::paths::text;
use crate::cli::say;
use crate::data::{Fit, decode, transform};
use crate::device::cuda::Autotune;
use crate::device::ops::{
    Classifier, HeadPredict, Plan, ViewRender, ViewSobel, ViewSpec, head_predict, plan_view,
    view_render, view_sobel,
};
use crate::device::{Engine, Layout, Pool, Slot};
use crate::net::{Mode, Program, ProgramSpec};
use crate::recipe::Recipe;
use crate::report::palette::palette;
use crate::report::pictures::{overlay, write_labels, write_rgb};
use crate::train::{Loaded, Trained};

/// The aspect ratios, long side to short side, that the network's input may have: those of cameras,
/// then steps of a third.
///
/// A GPU must plan convolutions for each shape of input, so photos of any sizes share a few shapes:
/// at most 7 if no photo is longer than twice its short side, else at most 17. A photo is stretched
/// along its long side to the nearest aspect ratio, by 17 % at most (from `--size 256` on, and up
/// to the last ratio). Photos of 4 : 3, 3 : 2 and 16 : 9 are stretched by 4 % at most, because of
/// rounding to a multiple of 32.
const ASPECTS: [f64; 9] = [1.0, 4.0 / 3.0, 1.5, 1.778, 2.370, 3.160, 4.214, 5.619, 7.492];

/// Bytes of memory for each pixel of the largest photo beside the plan: while it is read, or for
/// its RGB (3), labels (2), overlay (3) and what these are encoded to.
const BESIDE: usize = 12;
/// Bytes for each pixel of its clusters in the plan.
const PRED: usize = size_of::<u16>();

/// How often a pipe that nobody writes to is left to see whether the user asked to stop.
const LOOK: Duration = Duration::from_millis(100);

/// The long side of the input for a photo of this aspect ratio: among the multiples of 32 that
/// belong to [`ASPECTS`] at the short side `size`, the one nearest to `size` times `aspect`.
fn long_side(size: usize, aspect: f64) -> usize {
    let stretch = |side: usize| (side as f64 / (size as f64 * aspect)).ln().abs();
    let sides = ASPECTS.map(|aspect| (size as f64 * aspect / 32.0).round() as usize * 32);
    sides.into_iter().min_by(|&a, &b| stretch(a).total_cmp(&stretch(b))).expect("there are aspects")
}

/// Runs the command. Fails if any photo could not be read, after the others are done.
pub fn run(args: &SegmentArgs) -> Result<()> {
    let engine = Chosen::new(&args.engine, Autotune::Cached)?;
    let trained = Trained::read(&args.checkpoint)?;
    let size = args.size.unwrap_or(trained.recipe.eval_size);
    check_size(size)?;
    std::fs::create_dir_all(&args.out).map_err(|e| Error::io(&args.out, e))?;
    let mut told = Told { json: args.json, done: Vec::new(), failed: Vec::new(), said: Ok(()) };
    // A network that was trained on scaled pictures gets photos at the same scale.
    let short_side = |photo: usize| match (args.size, trained.recipe.fit) {
        (None, Fit::Pad { scale }) => ((photo as f64 * scale / 32.0).round() as usize).max(1) * 32,
        _ => size,
    };
    let (exif, mut photos) = (!args.turn.of(trained.exif).no_exif, Vec::new());
    for path in &args.images {
        stop::check()?;
        match Photo::look(path, &args.out, exif, short_side) {
            Ok(photo) => photos.push(photo),
            Err(e @ Error::Interrupted { .. }) => return Err(e),
            Err(e) => told.failed(path, e),
        }
    }
    check_outputs(&photos, args)?;
    photos.retain(|photo| {
        let places = [&photo.labels, &photo.overlay].map(|path| outputs::check_place(path));
        let taken = places.into_iter().find_map(Result::err);
        taken.map(|e| told.failed(&photo.path, e)).is_none()
    });
    segment(&mut *engine.open()?, &trained, photos, exif, &mut told)?;
    told.end(args.images.len())
}

/// Fails if something would be written over what was given, read or not, by whatever name, or
/// twice.
fn check_outputs(photos: &[Photo], args: &SegmentArgs) -> Result<()> {
    let both = |photo: &Photo| {
        [&photo.labels, &photo.overlay].map(|path| Output::new(path, photo.path.display()))
    };
    let written: Vec<Output> = photos.iter().flat_map(both).collect();
    let read = args.images.iter().chain([&args.checkpoint]).map(|path| &**path);
    outputs::check(&written, read, "give another folder with --out")
}

/// What is told of the photos. None of it stops the others: neither a photo that cannot be read nor
/// a standard output that cannot be written.
struct Told {
    json: bool,
    done: Vec<Value>,
    failed: Vec<Value>,
    /// The first failure of standard output.
    said: Result<()>,
}

impl Told {
    fn done(&mut self, Photo { path, labels, overlay, width, height, .. }: &Photo) {
        if self.json {
            self.done.push(json!({
                "photo": text(path), "labels": text(labels), "overlay": text(overlay),
                "width": width, "height": height
            }));
        } else if self.said.is_ok() {
            let [path, labels, overlay] = [path, labels, overlay].map(|path| path.display());
            self.said = say(format_args!("{path} → {labels}, {overlay}"));
        }
    }

    /// Tells why a photo is left out.
    fn failed(&mut self, path: &Path, e: Error) {
        warn(format_args!("picie: {e}"));
        self.failed.push(json!({ "photo": text(path), "why": e.to_string() }));
    }

    /// Fails if any of the `all` photos was left out, or standard output could not be written.
    fn end(self, all: usize) -> Result<()> {
        let Told { json, done, failed, said } = self;
        if json {
            say(json!({ "photos": done, "failed": failed }))?;
        }
        said?;
        match failed.len() {
            0 => Ok(()),
            broken => Err(Error::input(
                format!("{broken} of {all} photos were left out"),
                "see the lines above",
            )),
        }
    }
}

/// Segments the photos.
fn segment(
    dev: &mut dyn Engine,
    trained: &Trained,
    mut photos: Vec<Photo>,
    exif: bool,
    told: &mut Told,
) -> Result<()> {
    let mut segmenter = loop {
        match Segmenter::plan(dev, &photos, &trained.recipe) {
            Err(e @ Error::Memory { .. }) => leave_out(e, &mut photos, told)?,
            planned => break planned?,
        }
    };
    let classifier = trained.load(dev, &segmenter.loaded)?;
    let colours = palette(trained.recipe.clusters);
    for (done, photo) in photos.iter().enumerate() {
        let kept = || format!("{done} of {} photos are done", photos.len());
        stop::check().map_err(|e| e.kept(kept(), "run it again with the others"))?;
        let segmented = segmenter.segment(dev, photo, exif, classifier);
        let written = segmented.and_then(|(picture, labels)| {
            write_labels(&photo.labels, &labels, photo.width, photo.height)?;
            write_rgb(&photo.overlay, &overlay(&picture, &labels, &colours)?)
        });
        match written {
            Ok(()) => told.done(photo),
            Err(e) if matches!(e, Error::Device { .. }) || e.is_full_disk() => return Err(e),
            Err(e) => told.failed(&photo.path, e),
        }
    }
    Ok(())
}

/// Leaves out the photos that are too large for the memory which `e` tells of, at least the
/// largest. Fails with `e` if that leaves none.
fn leave_out(e: Error, photos: &mut Vec<Photo>, told: &mut Told) -> Result<()> {
    let Error::Memory { wanted, free, .. } = e else { return Err(e) };
    let takes = |photo: &Photo| (BESIDE + PRED) * photo.width * photo.height;
    let largest = photos.iter().map(takes).max().unwrap_or(0);
    let room = largest.saturating_sub((wanted.saturating_sub(free) << 20).max(1));
    if photos.iter().all(|photo| takes(photo) > room) {
        return Err(e);
    }
    for photo in photos.extract_if(.., |photo| takes(photo) > room) {
        let (takes, room) = (takes(&photo).div_ceil(1 << 20), room >> 20);
        let what = format!("to segment it takes {takes} MiB of memory, and {room} MiB are free");
        let remedy = "make it smaller, free some memory, or raise its limit";
        told.failed(&photo.path, Error::file(&photo.path, what, remedy));
    }
    Ok(())
}

/// Height and width of the network's input.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Input {
    h: usize,
    w: usize,
}

/// A temporary file, and its entry in the list of those.
type Copied = (NamedTempFile, Listed);

/// A photo: its size, the size of the network's input for it, and the paths of its outputs.
struct Photo {
    path: PathBuf,
    /// What came through a pipe.
    copy: Option<Copied>,
    width: usize,
    height: usize,
    /// Height and width of the network's input.
    input: Input,
    labels: PathBuf,
    overlay: PathBuf,
}

impl Photo {
    /// Reads the size of a photo. The input's short side is `size` of the photo's; its long side
    /// follows from the nearest of [`ASPECTS`], so that a strip of a few pixels' height is squeezed
    /// instead of taking all memory.
    fn look(path: &Path, out: &Path, exif: bool, size: impl Fn(usize) -> usize) -> Result<Self> {
        // A pipe can be read once only, and a photo is read twice.
        let copy = if is_stream(path) { Some(copied(path)?) } else { None };
        let file = copy.as_ref().map_or(path, |copy| copy.0.path());
        let (width, height) = decode::size(file, exif).map_err(|e| e.at(path))?;
        let size = size(width.min(height));
        let long = |long: usize, short: usize| long_side(size, long as f64 / short as f64);
        let input = if width < height {
            Input { h: long(height, width), w: size }
        } else {
            Input { h: size, w: long(width, height) }
        };
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let [labels, overlay] =
            ["labels", "overlay"].map(|what| out.join(format!("{stem}-{what}.png")));
        Ok(Photo { path: path.to_path_buf(), copy, width, height, input, labels, overlay })
    }

    /// The file to read the photo from.
    fn file(&self) -> &Path {
        self.copy.as_ref().map_or(&self.path, |copy| copy.0.path())
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

/// A network with a program for each size of input. The programs use the same memory, one after the
/// other.
struct Segmenter {
    loaded: Loaded,
    /// The network's program and the rendering op, by height and width of the input.
    programs: BTreeMap<Input, (Program, Plan<ViewSpec>)>,
    /// Whether the network reads Sobel gradients.
    sobel: bool,
    /// (height, width, 3), the photo at the input's size.
    image: Slot<u8>,
    /// (1), the number 0.
    index: Slot<u32>,
    /// (height, width), the clusters of the photo at its own size.
    pred: Slot<u16>,
}

impl Segmenter {
    fn plan(dev: &mut dyn Engine, photos: &[Photo], recipe: &Recipe) -> Result<Self> {
        let mut layout = Layout::new(dev.dtype());
        let loaded = Loaded::plan(&mut layout, recipe);
        let (k, merge, unit) = (recipe.clusters, recipe.merge, recipe.unit());
        let mut programs = BTreeMap::new();
        for input in photos.iter().map(|photo| photo.input) {
            let Input { h, w } = input;
            if let Entry::Vacant(entry) = programs.entry(input) {
                let spec = ProgramSpec { n: 1, h, w, groups: 1, k, merge, unit };
                let program = Program::plan(dev, &mut layout, &loaded.net, spec, Mode::Eval)?;
                let channels = recipe.architecture.input();
                let view = ViewSpec { n: 1, sh: h, sw: w, h, w, channels };
                entry.insert((program, plan_view(dev, view)?));
            }
        }
        let largest = |of: fn(&Photo) -> usize| photos.iter().map(of).max().unwrap_or(1);
        let image = layout.take(Pool::Staging, "image", largest(|p| p.input.h * p.input.w * 3));
        let index = layout.take(Pool::Staging, "image index", 1);
        let pixels = largest(|p| p.width * p.height);
        let pred = layout.take(Pool::State, "predictions", pixels);
        layout.beside("a photo, its labels and its overlay", BESIDE * pixels);
        dev.reserve(&layout)?;
        dev.write(index, &[0])?;
        Ok(Segmenter { loaded, programs, sobel: recipe.architecture.sobel, image, index, pred })
    }

    /// Reads and segments a photo. Returns it with its clusters (height, width).
    fn segment(
        &mut self,
        dev: &mut dyn Engine,
        photo: &Photo,
        exif: bool,
        classifier: Classifier,
    ) -> Result<(RgbImage, Vec<u16>)> {
        let rgb = decode::rgb(photo.file(), exif).map_err(|e| e.at(&photo.path))?;
        let Input { h, w } = photo.input;
        let (program, view) = &self.programs[&photo.input];
        let (x, images, index) = (program.x, self.image.part(0, h * w * 3), self.index);
        dev.write(images, &transform::resize(&rgb, w, h))?;
        view_render(
            dev,
            view,
            ViewRender { x, kept: None, images, index, photo: None, crops: None },
        )?;
        if self.sobel {
            view_sobel(dev, view, ViewSobel { x })?;
        }
        program.forward(dev, &self.loaded.net)?;
        let (height, width, input) = (photo.height, photo.width, program.plain());
        let pred = self.pred.part(0, width * height);
        let args = HeadPredict { pred, height, width, input, classifier };
        head_predict(dev, &program.head, args)?;
        let picture = RgbImage::from_raw(photo.width as u32, photo.height as u32, rgb.pixels)
            .ok_or_else(|| {
                Error::file(&photo.path, "the file changed while it was read", "try again")
            })?;
        Ok((picture, dev.read(pred)?))
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
