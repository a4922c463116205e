//! The record of a run for people: its report, and its event files for TensorBoard.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::base::fs::write_atomic;
use crate::base::say::warn;
use crate::base::{Error, Result};
use crate::cli::paths::text;
use crate::cli::train::pictures::Pictures;
use crate::data::PictureSet;
use crate::eval::{EpochRow, epochs};
use crate::report::events::EventFile;
use crate::report::html::run::{RunPage, flat};
use crate::report::{EvalReport, table, version};
use crate::train::{RunFolder, Seen, Sets, Settings};

/// The report is written after an epoch if since it was written last there has passed this many
/// times what that took.
const RARELY: u32 = 20;

/// Writes the record of a run.
pub struct Record<'a> {
    folder: &'a RunFolder,
    settings: &'a Settings,
    sets: &'a Sets,
    /// What the engine says of itself.
    device: Value,
    /// The event file, if there is to be one.
    events: Option<EventFile>,
    /// The scores and the pictures after the last epoch.
    last: Option<(Option<EvalReport>, Pictures)>,
    /// When the report was last written, and how long that took.
    written: Option<(Instant, Duration)>,
    /// Whether the user was told that something cannot be written.
    warned: bool,
}

impl<'a> Record<'a> {
    /// The record of a run in `folder` on the engine that says `device` of itself. With `events`
    /// there is an event file, and without if the run had some before.
    pub fn new(
        folder: &'a RunFolder,
        settings: &'a Settings,
        sets: &'a Sets,
        device: Value,
        events: bool,
    ) -> Self {
        let events = events || folder.events().is_dir();
        let events = events.then(|| EventFile::new(&folder.events()));
        let (last, written, warned) = (None, None, false);
        Record { folder, settings, sets, device, events, last, written, warned }
    }

    /// Records a finished epoch. A failure is told and does not stop the run, whose checkpoint is
    /// written already.
    pub fn epoch(&mut self, row: &EpochRow, seen: &Seen) {
        let epochs = self.settings.recipe.epochs;
        let state = format!("in training: {} of {epochs} epochs are finished", row.epoch);
        let due = self.written.is_none_or(|(at, took)| at.elapsed() >= RARELY * took);
        let mut work = || {
            if let Some(events) = &mut self.events {
                events.add(row)?;
            }
            self.see(seen)?;
            if due && row.epoch < epochs { self.write(&state) } else { Ok(()) }
        };
        if let Err(e) = work()
            && !self.warned
        {
            warn(format_args!("warning: the report is not up to date: {e}"));
            self.warned = true;
        }
    }

    /// Keeps what the network makes of the validation images.
    fn see(&mut self, seen: &Seen) -> Result<()> {
        let recipe = &self.settings.recipe;
        let scores = match (&self.sets.val, &seen.confusion) {
            (PictureSet::Labelled(val), Some(confusion)) => {
                let class_of = recipe.matching.of(confusion)?;
                let (images, parts) = (val.images.len(), &val.taxonomy.parts);
                let names = &val.taxonomy.classes;
                let size = recipe.eval_size;
                Some(EvalReport::new(confusion, &class_of, images, size, names, parts)?)
            }
            _ => None,
        };
        self.last = Some((scores, Pictures::new(self.sets, recipe, seen)?));
        Ok(())
    }

    /// Writes the pictures and the report of the finished run.
    pub fn finish(&mut self, seen: &Seen) -> Result<()> {
        self.see(seen)?;
        self.end("finished")
    }

    /// Writes the pictures, the table and the report of a run that ended.
    fn end(&mut self, state: &str) -> Result<()> {
        if let Some((_, pictures)) = &self.last {
            pictures.write(self.folder)?;
        }
        let table = table::epochs(&epochs::read_or_none(&self.folder.metrics())?);
        write_atomic(&self.folder.table(), |out| writeln!(out, "{table}"))?;
        self.write(state)
    }

    /// Writes pictures, table and report of a run that ended early, if an epoch was finished: one
    /// that was resumed and stopped at once keeps those that it has. A failure is told, since what
    /// ended the run is the error that counts.
    pub fn stopped(&mut self, why: &Error) {
        if self.last.is_some()
            && let Err(e) = self.end(&why.to_string())
        {
            warn(format_args!("warning: the report is not up to date: {e}"));
        }
    }

    /// Writes the report. `state` says what became of the run so far.
    fn write(&mut self, state: &str) -> Result<()> {
        let started = Instant::now();
        let html = self.page(state)?.html();
        write_atomic(&self.folder.report(), |out| out.write_all(html.as_bytes()))?;
        self.written = Some((Instant::now(), started.elapsed()));
        Ok(())
    }

    fn page(&self, state: &str) -> Result<RunPage> {
        let Settings { recipe, begun, .. } = self.settings;
        let (mut pictures, mut legend) = (Vec::new(), Vec::new());
        if let Some((_, shown)) = &self.last {
            (pictures, legend) = (shown.titled()?, shown.legend());
        }
        let rows = epochs::read_or_none(&self.folder.metrics())?;
        let date = humantime::format_rfc3339_seconds(SystemTime::now());
        Ok(RunPage {
            name: self.folder.path.display().to_string(),
            state: format!("{state} · recipe {} · {date}", recipe.name),
            rows,
            scores: self.last.as_ref().and_then(|(scores, _)| scores.clone()),
            pictures,
            legend,
            command: begun.command.clone(),
            facts: self.facts(),
        })
    }

    /// Everything that was set, and where the run was computed.
    fn facts(&self) -> Vec<(&'static str, Vec<(String, String)>)> {
        let Settings { seed, data, split, val_split, limit, start, begun, .. } = self.settings;
        let (train, val) = (self.sets.train.images(), self.sets.val.images());
        let labelled = matches!(self.sets.val, PictureSet::Labelled(_));
        let run = json!({
            "begun": begun.date, "seed": seed, "data": text(data), "split": split,
            "validation split": if labelled { val_split } else { "none: no labels" },
            "limit": limit, "images": train.len(), "stored at (pixels)": train.size(),
            "validation images": if labelled { val.len() } else { 0 },
            "weights to start from": start.to_string(),
            "run folder": text(&self.folder.path.canonicalize().unwrap_or_default()),
        });
        let program = json!({
            "picie": self.settings.version, "begun with commit": begun.commit,
            "report by": version::short(), "kernels": version::kernels(),
        });
        let machine = json!({ "host": self.settings.host, "engine": self.device });
        vec![
            ("Run", flat(&run)),
            ("Machine", flat(&machine)),
            ("Program", flat(&program)),
            ("Recipe", flat(&json!(self.settings.recipe))),
        ]
    }
}
