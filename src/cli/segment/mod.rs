//! The command `picie segment`, which segments each photo at its own size and aspect ratio.

mod files;
mod fuse;
mod inputs;
mod network;
mod photo;
mod refine;
mod tiles;
mod told;

use crate::base::{Error, Result, stop, tell};
use crate::cli::args::{SegmentArgs, Switch};
use crate::cli::engine::Chosen;
use crate::cli::limits::check_size;
use crate::cli::outputs::{self, Output};
use crate::cli::segment::files::Files;
use crate::cli::segment::inputs::find;
use crate::cli::segment::network::{Looks, PRED, Segmenter};
use crate::cli::segment::photo::Photo;
use crate::cli::segment::told::Told;
use crate::data::Fit;
use crate::device::Engine;
use crate::device::cuda::Autotune;
use crate::recipe::Recipe;
use crate::report::Progress;
use crate::report::pictures::{overlay, write_cutout, write_labels, write_rgb};
use crate::train::Trained;

/// Bytes of memory for each pixel of the largest photo beside the plan: while it is read, or for
/// its RGB (3), labels (2), overlay (3) and what these are encoded to.
const BESIDE: usize = 12;
/// The same where clusters are cut out: RGB (3), labels (2), RGB with alpha (4), encoded (4).
const BESIDE_CUTOUTS: usize = 13;

/// The short side of the network's input: of `--size`, else from that of the training.
fn short_side(args: &SegmentArgs, recipe: &Recipe) -> impl Fn(usize) -> Vec<usize> {
    let (given, size, fit, scales) =
        (args.size, recipe.photo_size(), recipe.fit, args.scales.clone());
    move |photo| {
        let side = match (given, fit) {
            // A network that was trained on scaled pictures gets photos at the same scale.
            (None, Fit::Pad { scale }) => photo as f64 * scale,
            (given, _) => given.unwrap_or(size) as f64,
        };
        scales.iter().map(|scale| ((side * scale / 32.0).round() as usize).max(1) * 32).collect()
    }
}

/// Runs the command. Fails if any photo could not be read, after the others are done.
pub fn run(args: &SegmentArgs) -> Result<()> {
    let engine = Chosen::new(&args.engine, Autotune::Cached)?;
    let trained = Trained::read(&args.checkpoint)?;
    let recipe = &trained.recipe;
    args.size.map_or(Ok(()), check_size)?;
    std::fs::create_dir_all(&args.out).map_err(|e| Error::io(&args.out, e))?;
    let mut told = Told::new(args, &trained.segments);
    let short_side = short_side(args, recipe);
    let (exif, mut photos) = (!args.turn.of(trained.exif).no_exif, Vec::new());
    let named = find(&args.images, |path, e| told.failed(path, e))?;
    let cutouts = if args.cutouts { trained.segments.len() } else { 0 };
    for named in &named {
        stop::check()?;
        let files = Files::new(&args.out, &named.name, args.scores, cutouts);
        match Photo::look(&named.path, files, exif, &short_side) {
            Ok(photo) => photos.push(photo),
            Err(e @ Error::Interrupted { .. }) => return Err(e),
            Err(e) => told.failed(&named.path, e),
        }
    }
    for dir in photos.iter().filter_map(|photo| photo.files.labels.parent()) {
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    }
    check_outputs(&photos, args, &told, named.iter().map(|named| &*named.path))?;
    photos.retain(|photo| {
        let taken = photo.files.check_places().err();
        taken.map(|e| told.failed(&photo.path, e)).is_none()
    });
    if args.size.is_none() && !matches!(recipe.fit, Fit::Pad { .. }) {
        let (size, trained) = (recipe.photo_size(), recipe.size);
        tell(format_args!("input: short side {size}, twice the training's {trained} (see --size)"));
    }
    let beside = if args.cutouts { BESIDE_CUTOUTS } else { BESIDE };
    let SegmentArgs { flip, scores, refine, tile, .. } = *args;
    let refine = refine == Switch::On;
    let looks = Looks { flip, scores, refine, tile, exif, beside };
    told.begin(photos.len());
    let ended = segment(&mut *engine.open()?, &trained, photos, looks, &mut told);
    told.write()?;
    ended?;
    told.end()
}

/// Fails if something would be written over what was given, read or not, by whatever name, or
/// twice.
fn check_outputs<'a>(
    photos: &[Photo],
    args: &'a SegmentArgs,
    told: &Told,
    named: impl Iterator<Item = &'a std::path::Path>,
) -> Result<()> {
    let mut written: Vec<Output> =
        photos.iter().flat_map(|photo| photo.files.outputs(&photo.path)).collect();
    let all = told.files();
    written.extend(all.iter().map(|path| Output::new(path, "all photos")));
    let read = args.images.iter().chain([&args.checkpoint]).map(|path| &**path);
    outputs::check(&written, read.chain(named), "give another folder with --out")?;
    outputs::check_own(&all[..1], &all[0], &["checkpoint", "segments", "photos"])?;
    all.iter().try_for_each(|path| outputs::check_place(path))
}

/// Segments the photos.
fn segment(
    dev: &mut dyn Engine,
    trained: &Trained,
    mut photos: Vec<Photo>,
    looks: Looks,
    told: &mut Told,
) -> Result<()> {
    let mut segmenter = loop {
        match Segmenter::plan(dev, &photos, &trained.recipe, looks) {
            Err(e @ Error::Memory { .. }) => leave_out(e, &mut photos, looks.beside, told)?,
            planned => break planned?,
        }
    };
    let classifier = trained.load(dev, &segmenter.loaded)?;
    let colours: Vec<_> = trained.segments.iter().map(|segment| segment.colour).collect();
    let phase = Progress::count("segment", photos.len() as u64, "photos");
    for (done, photo) in photos.iter().enumerate() {
        let kept = || format!("{done} of {} photos are done", photos.len());
        stop::check().map_err(|e| e.kept(kept(), "run it again with the others"))?;
        let (w, h, files) = (photo.width, photo.height, &photo.files);
        let segmented = segmenter.segment(dev, photo, classifier);
        let written = segmented.and_then(|seen| {
            write_labels(&files.labels, &seen.labels, w, h, &colours)?;
            write_rgb(&files.overlay, &overlay(&seen.picture, &seen.labels, &colours)?)?;
            for id in told::occurring(&seen.labels, files.cutouts.len()) {
                write_cutout(&files.cutouts[id], &seen.picture, &seen.labels, id as u16)?;
            }
            told::write_scores(files, &seen, classifier.k)?;
            told.done(done, photo, &seen)
        });
        match written {
            Ok(()) => phase.add(1),
            Err(e) if matches!(e, Error::Device { .. }) || e.is_full_disk() => return Err(e),
            Err(e) => told.failed(&photo.path, e),
        }
    }
    if !photos.is_empty() {
        phase.finish();
    }
    Ok(())
}

/// Leaves out the photos that are too large for the memory which `e` tells of, at least the
/// largest. Fails with `e` if that leaves none.
fn leave_out(e: Error, photos: &mut Vec<Photo>, beside: usize, told: &mut Told) -> Result<()> {
    let Error::Memory { wanted, free, .. } = e else { return Err(e) };
    let takes = |photo: &Photo| (beside + PRED) * photo.pixels();
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
