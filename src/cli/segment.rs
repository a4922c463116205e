//! `picie segment`: each photo at its own size and aspect.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use image::RgbImage;

use crate::base::{Error, Result, stop, tell};
use crate::cli::args::SegmentArgs;
use crate::cli::engine::Chosen;
use crate::cli::limits::check_size;
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

/// The aspects that the network's input may have, as its long side in short sides: those that
/// cameras have, then steps of a third.
///
/// Each shape of input costs a GPU the planning of its convolutions, so photos of any sizes share
/// few of them: 7 where no photo is longer than twice its short side, 17 whatever the photos are. A
/// photo is stretched along its long side to the nearest aspect, by 17 % at most (from `--size 256`
/// on, and up to the last aspect); those of 4 : 3, 3 : 2 and 16 : 9 by 4 % at most, which is what
/// rounding to a multiple of 32 costs.
const ASPECTS: [f64; 9] = [1.0, 4.0 / 3.0, 1.5, 1.778, 2.370, 3.160, 4.214, 5.619, 7.492];

/// The multiple of 32 that is nearest to `size` times `aspect` among those of [`ASPECTS`].
fn long_side(size: usize, aspect: f64) -> usize {
    let stretch = |side: usize| (side as f64 / (size as f64 * aspect)).ln().abs();
    let sides = ASPECTS.map(|aspect| (size as f64 * aspect / 32.0).round() as usize * 32);
    sides.into_iter().min_by(|&a, &b| stretch(a).total_cmp(&stretch(b))).expect("there are aspects")
}

pub fn run(args: &SegmentArgs) -> Result<()> {
    let engine = Chosen::new(&args.engine, Autotune::Cached)?;
    let trained = Trained::read(&args.checkpoint)?;
    let size = args.size.unwrap_or(trained.recipe.eval_size);
    check_size(size)?;
    std::fs::create_dir_all(&args.out).map_err(|e| Error::io(&args.out, e))?;
    // One bad photo does not lose the others.
    let mut broken = 0;
    let mut bad = |e: Error| {
        complain(e);
        broken += 1;
    };
    // A network that was trained on scaled pictures sees photos at that scale.
    let short_side = |photo: usize| match (args.size, trained.recipe.fit) {
        (None, Fit::Pad { scale }) => ((photo as f64 * scale / 32.0).round() as usize).max(1) * 32,
        _ => size,
    };
    let mut photos = Vec::new();
    for path in &args.images {
        stop::check()?;
        photos.extend(Photo::look(path, &args.out, short_side).map_err(&mut bad).ok());
    }
    let mut outputs = BTreeMap::new();
    for photo in &photos {
        if let Some(first) = outputs.insert(photo.labels.clone(), &photo.path) {
            let what = format!(
                "{} and {} would both be written to {}",
                first.display(),
                photo.path.display(),
                photo.labels.display()
            );
            return Err(Error::input(what, "rename one, or segment them into two folders"));
        }
    }
    broken += segment(&mut *engine.open()?, &trained, &photos)?;
    match broken {
        0 => Ok(()),
        _ => Err(Error::input(
            format!("{broken} of {} images could not be read", args.images.len()),
            "see the lines above",
        )),
    }
}

/// Says why a photo is left out.
fn complain(e: Error) {
    tell(format_args!("picie: {e}"));
}

/// Returns how many photos could not be read.
fn segment(dev: &mut dyn Engine, trained: &Trained, photos: &[Photo]) -> Result<usize> {
    let mut broken = 0;
    let mut segmenter = Segmenter::plan(dev, photos, &trained.recipe)?;
    let classifier = trained.load(dev, &segmenter.loaded)?;
    let colours = palette(trained.recipe.clusters);
    for (done, photo) in photos.iter().enumerate() {
        let kept = || format!("{done} of {} photos are done", photos.len());
        stop::check().map_err(|e| e.kept(kept(), "run it again with the others"))?;
        match segmenter.segment(dev, photo, classifier) {
            Ok((picture, labels)) => {
                write_labels(&photo.labels, &labels, photo.width, photo.height)?;
                write_rgb(&photo.overlay, &overlay(&picture, &labels, &colours)?)?;
                let (path, labels, overlay) =
                    (photo.path.display(), photo.labels.display(), photo.overlay.display());
                say(format_args!("{path} → {labels}, {overlay}"))?;
            }
            Err(e @ Error::Device { .. }) => return Err(e),
            Err(e) => {
                complain(e);
                broken += 1;
            }
        }
    }
    Ok(broken)
}

/// The size of the network's input.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Input {
    h: usize,
    w: usize,
}

/// One photo: its size, the network's input for it, and its outputs.
struct Photo {
    path: PathBuf,
    width: usize,
    height: usize,
    input: Input,
    labels: PathBuf,
    overlay: PathBuf,
}

impl Photo {
    /// The short side becomes what `size` makes of it, the long side that of the nearest of
    /// [`ASPECTS`]: a strip of a few pixels' height is squeezed, instead of taking all memory.
    fn look(path: &Path, out: &Path, size: impl Fn(usize) -> usize) -> Result<Self> {
        let (width, height) = decode::size(path)?;
        let size = size(width.min(height));
        let long = |long: usize, short: usize| long_side(size, long as f64 / short as f64);
        let input = if width < height {
            Input { h: long(height, width), w: size }
        } else {
            Input { h: size, w: long(width, height) }
        };
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let output = |what: &str| out.join(format!("{stem}-{what}.png"));
        Ok(Photo {
            path: path.to_path_buf(),
            width,
            height,
            input,
            labels: output("labels"),
            overlay: output("overlay"),
        })
    }
}

/// A program for each input size, one after the other on the same memory.
struct Segmenter {
    loaded: Loaded,
    programs: BTreeMap<Input, (Program, Plan<ViewSpec>)>,
    sobel: bool,
    image: Slot<u8>,
    index: Slot<u32>,
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
        let pred = layout.take(Pool::State, "predictions", largest(|p| p.width * p.height));
        dev.reserve(&layout)?;
        dev.write(index, &[0])?;
        Ok(Segmenter { loaded, programs, sobel: recipe.architecture.sobel, image, index, pred })
    }

    /// The photo and its clusters (height, width).
    fn segment(
        &mut self,
        dev: &mut dyn Engine,
        photo: &Photo,
        classifier: Classifier,
    ) -> Result<(RgbImage, Vec<u16>)> {
        let rgb = decode::rgb(&photo.path)?;
        let Input { h, w } = photo.input;
        let (program, view) = &self.programs[&photo.input];
        let (x, images, index) = (program.x, self.image.part(0, h * w * 3), self.index);
        dev.write(images, &transform::resize(&rgb, w, h))?;
        view_render(dev, view, ViewRender { x, images, index, photo: None, crops: None })?;
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
            // All but the first lie and stand.
            assert_eq!((shapes(2.0), shapes(7.5)), (4, 9), "{size}");
            for aspect in [4.0 / 3.0, 1.5, 16.0 / 9.0] {
                let stretch = long_side(size, aspect) as f64 / (size as f64 * aspect);
                assert!((stretch - 1.0).abs() <= 0.04, "{size}: {aspect} stretched by {stretch}");
            }
        }
        assert_eq!((long_side(32, 3000.0), long_side(320, 1.0)), (224, 320));
    }
}
