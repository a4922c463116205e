//! `picie train`.

use image::RgbImage;

use crate::augment::View;
use crate::base::{Error, Result, stop, tell};
use crate::cli::args::TrainArgs;
use crate::cli::choose;
use crate::cli::engine::{Engine, Job};
use crate::cli::plan::{FileBar, Undecided};
use crate::cli::read::Reader;
use crate::cli::say;
use crate::cli::watch::Watch;
use crate::data::{self, Dataset, EvalStore, IGNORE, ImageStore, PictureSet, Square};
use crate::device::cuda::Autotune;
use crate::device::ops::Backend;
use crate::eval::{ClassOf, Confusion, EpochRow, Matching, majority_vote};
use crate::net::weights::Start;
use crate::recipe::{Laterals, Method};
use crate::report::pictures::{NONE, overlay, relabel, write_rgb};
use crate::report::sheet::{SheetRow, sheet};
use crate::report::{palette, table};
use crate::train::{self, Outcome, RunFolder, Sets, Settings, train};

/// Validation images in the pictures of a run.
const SHOWN: usize = 6;

pub fn run(args: &TrainArgs) -> Result<()> {
    let folder = one(args)?.0;
    if args.plan {
        return Ok(());
    }
    say(format_args!("run: {}", folder.path.display()))?;
    say(format_args!("pictures: {}", folder.pictures().display()))?;
    let checkpoint = folder.checkpoint();
    say(format_args!(
        "segment your own: picie segment --checkpoint {} --out DIR IMAGE...",
        checkpoint.display()
    ))
}

/// One run, its table and pictures; the record of its epochs, none where only the plan was asked
/// for.
pub fn one(args: &TrainArgs) -> Result<(RunFolder, Vec<EpochRow>)> {
    let engine = Engine::choose(&args.engine, Autotune::Load)?;
    let (folder, mut settings, mut start) = args.settings(engine.is_gpu())?;
    if !args.resume {
        let laterals = match settings.recipe.laterals {
            _ if start.has_laterals() => "its own",
            Laterals::Random => "random",
            Laterals::Pca => "from principal components of these images",
        };
        tell(format_args!("starts from {}, laterals {laterals}", start.record));
        start.warning.iter().for_each(|warning| tell(format_args!("warning: {warning}")));
    }
    let undecided = args.undecided(&settings.recipe);
    let sets = load(&settings, Reader::new(args.strict, &args.keep), undecided)?;
    choose::choose(undecided, &engine, (&mut settings, &mut start), &sets)?;
    let rows = engine.run(Train {
        args,
        folder: &folder,
        settings: &settings,
        sets: &sets,
        start: &start,
    })?;
    Ok((folder, rows))
}

struct Train<'a> {
    args: &'a TrainArgs,
    folder: &'a RunFolder,
    settings: &'a Settings,
    sets: &'a Sets,
    start: &'a Start,
}

impl Job for Train<'_> {
    type Out = Vec<EpochRow>;

    fn run<B: Backend>(self, dev: &mut B) -> Result<Vec<EpochRow>> {
        let Train { args, folder, settings, sets, start } = self;
        if args.plan {
            say(train::plan(dev, settings, sets)?.text(dev))?;
            return Ok(Vec::new());
        }
        let mut watch =
            Watch::new(args.profile_steps.clone().unwrap_or_default(), args.check_finite.into());
        let outcome = train(dev, folder, settings, sets, start, args.resume, &mut watch)?;
        say(table::epochs(&outcome.rows))?;
        let rows = outcome.rows.clone();
        pictures(dev, folder, sets, outcome).map_err(|e| folder.kept(e))?;
        Ok(rows)
    }
}

fn load(settings: &Settings, read: Reader, undecided: Undecided) -> Result<Sets> {
    let open = |split: &str| -> Result<Dataset> {
        let bar = FileBar::new("select");
        let mut set =
            data::open(&settings.data, settings.dataset, split, settings.classes, &|d, t| {
                bar.set(d, t)
            })?;
        bar.finish();
        set.items.truncate(settings.limit.unwrap_or(usize::MAX));
        Ok(set)
    };
    let recipe = &settings.recipe;
    let set = open(&settings.split)?;
    let train = match recipe.method {
        Method::Supervised => {
            let store =
                read.labelled(&set, Square::new(recipe.stored, recipe.fit), "read labels")?;
            if store.occurring()? == 0 {
                let what = format!("no pixel of the split {} has one of the classes", set.split);
                return Err(Error::file(
                    &settings.data,
                    what,
                    "the recipe learns from labels: choose other --classes or --split",
                ));
            }
            PictureSet::Labelled(Box::new(store))
        }
        _ => PictureSet::Plain(read.images(
            &set,
            Square::new(recipe.stored, recipe.fit),
            "read images",
        )?),
    };
    let shown = || {
        let few = Dataset {
            items: train.images().items.iter().take(SHOWN).cloned().collect(),
            ..set.clone()
        };
        read.images(&few, Square::new(recipe.eval_size, recipe.fit), "read for pictures")
            .map(PictureSet::Plain)
    };
    // Labels are needed to train by few recipes: where there are none, pictures show clusters of
    // training images.
    let val = match open(&settings.val_split) {
        Ok(val) if val.taxonomy.is_some() && val.items.iter().any(|item| item.label.is_some()) => {
            let store =
                read.labelled(&val, Square::new(recipe.eval_size, recipe.fit), "read labels")?;
            let occur = store.occurring()?;
            recipe
                .matching
                .check(occur, if undecided.clusters { choose::MOST } else { recipe.clusters })?;
            if occur > 0 {
                PictureSet::Labelled(Box::new(store))
            } else {
                tell(format_args!(
                    "no evaluation: no pixel of {} has one of the classes",
                    val.split
                ));
                shown()?
            }
        }
        Ok(_) => shown()?,
        // A data set without a val split is nothing wrong; a split that was asked for is.
        Err(e) if settings.val_split == "val" => {
            tell(format_args!("no evaluation: {e}"));
            shown()?
        }
        Err(e) => return Err(e),
    };
    Ok(Sets { train, val })
}

/// A sheet (image | prediction | ground truth) and an overlay of each of its images.
fn pictures<B: Backend>(
    dev: &mut B,
    folder: &RunFolder,
    sets: &Sets,
    outcome: Outcome<B>,
) -> Result<()> {
    let Outcome { method, mut evaluator, .. } = outcome;
    let dir = folder.pictures();
    std::fs::create_dir_all(&dir).map_err(|e| Error::io(&dir, e))?;
    let images = sets.val.images();
    let n = SHOWN.min(images.len());
    let side = images.size();
    let (classifier, common) = (method.scorer(dev, true)?, method.common());
    let clusters = evaluator.predict(dev, &common.net, images, classifier, n)?;
    let (class_of, names): (ClassOf, Vec<String>) = match &sets.val {
        PictureSet::Labelled(val) => {
            let confusion =
                evaluator.run(dev, &common.net, val, (classifier, View::Plain), &mut |_| {
                    stop::check()
                })?;
            (
                class_in_pictures(common.recipe.matching, &confusion)?,
                val.taxonomy.classes.iter().map(|name| name.to_string()).collect(),
            )
        }
        PictureSet::Plain(_) => {
            let k = common.recipe.clusters;
            ((0..k).map(Some).collect(), (1..=k).map(|c| format!("cluster {c}")).collect())
        }
    };
    let prediction = relabel(&clusters, &class_of);
    let colours = palette::palette(names.len());
    let mut rows = Vec::new();
    for (i, labels) in prediction.chunks(side * side).enumerate() {
        let picture = picture(images, i)?;
        let truth = match &sets.val {
            PictureSet::Labelled(val) => Some(truth(val, i)?),
            PictureSet::Plain(_) => None,
        };
        write_rgb(
            &dir.join(picture_name(i, &images.items[i].id)),
            &overlay(&picture, labels, &colours)?,
        )?;
        rows.push(SheetRow { image: picture, predictions: vec![labels.to_vec()], truth });
    }
    write_rgb(&dir.join("sheet.png"), &sheet(&rows, &["prediction".into()], &names)?)
}

/// Image `i` of a set.
pub fn picture(images: &ImageStore, i: usize) -> Result<RgbImage> {
    let side = images.size();
    let mut pixels = vec![0; side * side * 3];
    images.gather(&[i as u32], &mut pixels)?;
    Ok(RgbImage::from_raw(side as u32, side as u32, pixels).expect("gathered a whole image"))
}

/// The classes of image `i` of a set.
pub fn truth(set: &EvalStore, i: usize) -> Result<Vec<u16>> {
    let mut truth = vec![0; set.images.size().pow(2)];
    set.gather_labels(&[i as u32], &mut truth)?;
    Ok(truth.into_iter().map(|c| if c == IGNORE { NONE } else { u16::from(c) }).collect())
}

/// Several clusters may share a class in pictures, as in the supplement's; what was trained on
/// labels has its own.
pub fn class_in_pictures(matching: Matching, confusion: &Confusion) -> Result<ClassOf> {
    if matching == Matching::Identity {
        matching.of(confusion)
    } else {
        Ok(majority_vote(confusion))
    }
}

/// A file name for image `i`: its number makes it unlike any other, what fits of its id says which
/// image it is.
fn picture_name(i: usize, id: &str) -> String {
    let id = id.replace(['/', '\\'], "_");
    // File systems allow 255 bytes.
    let start = (id.len().saturating_sub(200)..).find(|&at| id.is_char_boundary(at)).unwrap_or(0);
    format!("{}-{}.png", i + 1, &id[start..])
}
