//! The command `picie train`.

mod load;
mod pictures;
mod record;

use serde_json::json;

use crate::base::say::{detail, quoted, warn};
use crate::base::{Error, Result, tell};
use crate::cli::args::TrainArgs;
use crate::cli::choose;
use crate::cli::engine::Chosen;
use crate::cli::paths::text;
use crate::cli::read::Reader;
use crate::cli::say;
use crate::cli::train::record::Record;
use crate::cli::watch::Watch;
use crate::data::Account;
use crate::device::cuda::Autotune;
use crate::eval::{EpochRow, epochs};
use crate::net::weights::Taken;
use crate::recipe::Laterals;
use crate::report::table;
use crate::train::{Outcome, RunFolder, Seen, plan, train};

/// Runs the command, and prints where its results are.
pub fn run(args: &TrainArgs) -> Result<()> {
    let One { folder, rows, account } = one(args)?;
    if args.plan {
        return Ok(());
    }
    let (run, report) = (&folder.path, folder.report());
    let (pictures, checkpoint) = (folder.pictures(), folder.checkpoint());
    if args.json {
        return say(json!({
            "run": text(run), "report": text(&report), "pictures": text(&pictures),
            "checkpoint": text(&checkpoint), "epochs": rows, "data": account
        }));
    }
    let own = format!("picie segment --checkpoint {} --out DIR IMAGE...", quoted(&checkpoint));
    say(format_args!(
        "{}\nrun: {}\nreport: {}\npictures: {}\nsegment your own: {own}",
        table::epochs(&rows),
        run.display(),
        report.display(),
        pictures.display()
    ))
}

/// A run that is trained.
pub struct One {
    pub folder: RunFolder,
    /// The rows of its epochs; none if only the plan was asked for.
    pub rows: Vec<EpochRow>,
    /// What its folder of images holds beside them.
    pub account: Account,
}

/// Trains one run, and writes its pictures and its report. If only the plan is asked for it is
/// printed.
pub fn one(args: &TrainArgs) -> Result<One> {
    let engine = Chosen::new(&args.engine, Autotune::Load)?;
    let (folder, mut settings, mut start) = args.settings(engine.is_gpu())?;
    if !args.resume {
        let laterals = match settings.recipe.laterals {
            _ if start.has_laterals() => "its own",
            Laterals::Random => "random",
            Laterals::Pca => "from principal components of these images",
        };
        let taken = match start.taken {
            Some(Taken { read, left_out: 0 }) => format!(", all {read} tensors"),
            Some(Taken { read, left_out }) => format!(", {read} tensors read, {left_out} left out"),
            None => String::new(),
        };
        tell(format_args!("starts from {}{taken}, laterals {laterals}", start.provenance));
        start.warning.iter().for_each(|warning| warn(format_args!("warning: {warning}")));
    }
    let undecided = args.undecided(&settings.recipe);
    let (sets, account) =
        load::load(&settings, Reader::new(args.strict, &args.keep, settings.exif), undecided)?;
    choose::choose(undecided, &engine, &mut settings, &mut start, &sets)?;
    detail(format_args!("recipe: {}", json!(settings.recipe)));
    let dev = &mut *engine.open()?;
    if args.plan {
        let plan = plan(dev, &settings, &sets)?;
        say(if args.json { plan.json(dev).to_string() } else { plan.text(dev) })?;
        return Ok(One { folder, rows: Vec::new(), account });
    }
    let (device, steps) = (dev.describe(), args.profile_steps.clone().unwrap_or_default());
    let mut record = Record::new(&folder, &settings, &sets, device, args.tensorboard);
    let mut on_epoch = |row: &EpochRow, seen: &Seen| record.epoch(row, seen);
    let (last, look) = (settings.recipe.epochs, args.check_finite.into());
    let mut watch = Watch::new(last, steps, look, &mut on_epoch);
    let trained = train(dev, &folder, &settings, &sets, &start, args.resume, &mut watch);
    dev.choices().iter().for_each(|choice| detail(format_args!("chosen: {choice}")));
    if let Err(e) = &trained {
        record.stopped(e);
        if let Error::Interrupted { .. } = e
            && !args.json
        {
            // Why it was stopped is the error that counts.
            let rows = epochs::read_or_none(&folder.metrics()).unwrap_or_default();
            if !rows.is_empty() {
                let _ = say(table::epochs(&rows));
            }
        }
    }
    let Outcome { seen, rows } = trained?;
    record.finish(&seen)?;
    Ok(One { folder, rows, account })
}
