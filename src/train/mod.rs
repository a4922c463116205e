//! The loop: k-means, labels, training and evaluation of each epoch; what is saved when, and what
//! happens on Ctrl-C.

mod batches;
mod checkpoint;
mod finite;
mod kept;
mod measure;
mod observer;
mod outlook;
mod plan;
mod run;

pub use checkpoint::{Loaded, Trained};
pub use kept::MOST as MOST_UNSEEN;
pub use measure::{EpochSeconds, Measured};
pub use observer::Observer;
pub use plan::{Plan, plan};
pub use run::{Host, RunFolder, Settings};

use std::time::Instant;

use crate::augment::View;
use crate::base::{Error, Result, stop};
use crate::data::PictureSet;
use crate::device::ops::{Backend, Classifier};
use crate::eval::Scores;
use crate::eval::epochs::{self, EpochRow, Score};
use crate::method::{Evaluator, Losses, Method, PcaLaterals};
use crate::net::weights::Start;
use crate::train::batches::Batches;
use crate::train::checkpoint::{Phase, State};
use crate::train::kept::Kept;
use crate::train::observer::{ticker, unless_stopped};
use crate::train::plan::name_batches;

/// Images to learn from, and images to look at: where those have labels, to evaluate on.
pub struct Sets {
    pub train: PictureSet,
    pub val: PictureSet,
}

/// What a finished run leaves in memory for its pictures.
pub struct Outcome<'a, B: Backend> {
    pub method: Box<dyn Method<B> + 'a>,
    pub evaluator: Evaluator<B>,
    /// From `metrics.jsonl`, all epochs.
    pub rows: Vec<EpochRow>,
}

struct Trainer<'a, 'm, B: Backend> {
    dev: &'a mut B,
    sets: &'a Sets,
    folder: &'a RunFolder,
    watch: &'a mut dyn Observer,
    method: Box<dyn Method<B> + 'm>,
    evaluator: Evaluator<B>,
    kept: Kept,
    state: State,
}

/// Plans, starts from `start` or resumes, and trains to the end. A run begins, that is its settings
/// are written, once everything is known to be in order: until then an error leaves nothing behind.
pub fn train<'a, B: Backend + 'a>(
    dev: &mut B,
    folder: &RunFolder,
    settings: &Settings,
    sets: &Sets,
    start: &Start,
    resume: bool,
    watch: &mut dyn Observer,
) -> Result<Outcome<'a, B>> {
    let recipe = &settings.recipe;
    let images = sets.train.images().len();
    let plan = plan(dev, settings, sets)?;
    let text = plan.text(dev);
    outlook::of(recipe, sets.train.images(), plan.layout.total_bytes())
        .iter()
        .for_each(|line| watch.note(line));
    let Plan { layout, mut method, laterals, evaluator, kept } = plan;
    dev.reserve(&layout).map_err(|e| name_batches(e, recipe))?;
    method.common_mut().load_images(dev, sets.train.images())?;
    method.init(dev)?;
    let fingerprint = sets.train.images().fingerprint();
    let state = if resume && folder.checkpoint().exists() {
        checkpoint::load(&folder.checkpoint(), dev, &*method, recipe, settings.seed, fingerprint)?
    } else {
        // ImageNet weights have no pyramid: it keeps its random start, or begins as the data says.
        if let Some(weights) = &start.weights {
            method.common().net.load(dev, weights)?;
        }
        if let Some(laterals) = laterals.filter(|_| !start.has_laterals()) {
            watch.begin("laterals", PcaLaterals::<B>::images(recipe, images));
            laterals.fit(dev, method.common_mut(), sets.train.images(), &mut ticker(watch))?;
            watch.end();
        }
        State::begin(recipe.clone(), settings.seed, settings.start.clone(), fingerprint)
    };
    if !resume {
        folder.write_settings(settings)?;
    }
    folder.write_plan(&text)?;
    epochs::truncate_from(&folder.metrics(), state.epoch)?;
    let mut trainer = Trainer { dev, sets, folder, watch, method, evaluator, kept, state };
    while trainer.state.epoch <= recipe.epochs {
        trainer.dev.enter(&format!("epoch {}", trainer.state.epoch));
        let done = trainer.epoch();
        trainer.dev.leave();
        done?;
    }
    let (method, evaluator) = (trainer.method, trainer.evaluator);
    Ok(Outcome { method, evaluator, rows: epochs::read(&folder.metrics())? })
}

impl<B: Backend> Trainer<'_, '_, B> {
    fn epoch(&mut self) -> Result<()> {
        let mut untrained_s = 0.0;
        if self.state.phase == Phase::KMeans {
            self.pass("k-means", 0, Self::kmeans)?;
            self.state.phase = Phase::Labels;
        }
        if self.state.epoch == 1
            && self.state.untrained.is_none()
            && self.state.phase == Phase::Labels
            && self.views() > 0
        {
            let started = Instant::now();
            let scorer = self.method.scorer(self.dev, false)?;
            let Some(score) = unless_stopped(self.evaluate("untrained", scorer))? else {
                return self.interrupt();
            };
            self.state.untrained = score;
            untrained_s = started.elapsed().as_secs_f64();
        }
        if self.state.phase == Phase::Labels {
            self.pass("labels", 1, Self::labels)?;
            self.state.phase = Phase::Train;
            if self.state.epoch == 1 && self.views() > 0 {
                let [kmeans_s, labels_s, _] = self.state.seconds;
                let left = outlook::seconds_left(
                    &self.method.common().recipe,
                    [kmeans_s, labels_s, untrained_s],
                );
                self.watch.note(&outlook::duration(left));
            }
        }
        let started = Instant::now();
        self.dev.enter("train");
        let trained = self.steps();
        self.dev.leave();
        self.state.seconds[2] += started.elapsed().as_secs_f64();
        if unless_stopped(trained)?.is_none() {
            return self.interrupt();
        }
        self.finish()
    }

    /// Views that are clustered.
    fn views(&self) -> usize {
        self.method.clustering().map_or(0, |clustering| clustering.pseudo().len())
    }

    /// A pass without gradients over each view, where there are any. Interrupted, it is forgotten
    /// and begins anew when resumed: it is cheap beside the training steps, and all it can have
    /// changed are running statistics and centroids.
    fn pass(&mut self, name: &str, clock: usize, pass: fn(&mut Self) -> Result<()>) -> Result<()> {
        if self.views() == 0 {
            return Ok(());
        }
        let started = Instant::now();
        let running = self.method.common().net.running(self.dev)?;
        let clustering = self.method.clustering().expect("there are views");
        let centroids = clustering.centroids(self.dev)?;
        self.watch.begin(name, self.views() * self.sets.train.images().len());
        self.dev.enter(name);
        let passed = pass(self);
        self.dev.leave();
        if unless_stopped(passed)?.is_none() {
            self.method.common().net.restore_running(self.dev, &running)?;
            let clustering = self.method.clustering().expect("there are views");
            clustering.restore_centroids(self.dev, &centroids)?;
            return self.interrupt();
        }
        self.watch.end();
        self.state.seconds[clock] = started.elapsed().as_secs_f64();
        Ok(())
    }

    fn kmeans(&mut self) -> Result<()> {
        self.state.kmeans.clear();
        for view in 0..self.views() {
            let (epoch, mut tick) = (self.state.epoch, ticker(self.watch));
            let (common, clustering) = self.method.clustering_mut().expect("there are views");
            let summary = clustering.kmeans(
                common,
                self.dev,
                self.sets.train.images(),
                (epoch, view),
                &mut tick,
            )?;
            drop(tick);
            if !summary.objective.is_finite() {
                let what =
                    format!("the k-means objective of view {} is {}", view + 1, summary.objective);
                let place = finite::state(self.dev, &*self.method, true)?;
                return Err(self.not_finite(what, place, self.state.adam_step));
            }
            self.state.kmeans.push(summary.into());
        }
        Ok(())
    }

    fn labels(&mut self) -> Result<()> {
        for view in 0..self.views() {
            let (epoch, mut tick) = (self.state.epoch, ticker(self.watch));
            let (common, clustering) = self.method.clustering_mut().expect("there are views");
            clustering.label(
                common,
                self.dev,
                self.sets.train.images(),
                (epoch, view),
                &mut tick,
            )?;
        }
        Ok(())
    }

    /// The training steps that are left of the epoch.
    fn steps(&mut self) -> Result<()> {
        let done = self.state.step;
        self.method.begin_steps(self.dev, self.state.epoch, done == 0)?;
        let batches =
            Batches::new(&*self.method, self.state.epoch, self.state.adam_step - done as u64);
        self.watch.begin("train", batches.images());
        self.watch.advance((0..done).map(|i| batches.get(i).ids.len()).sum());
        let mut recording = false;
        for i in done..batches.len() {
            let batch = batches.get(i);
            let profiled = self.watch.profiled(batch.step);
            if profiled != recording {
                self.dev.record(profiled)?;
                recording = profiled;
            }
            let next = (i + 1 < batches.len()).then(|| batches.get(i + 1));
            self.kept.step(self.dev, &mut *self.method, &self.sets.train, batch, next)?;
            self.state.step += 1;
            self.state.adam_step = batch.step;
            let ticked = ticker(self.watch)(batch.ids.len());
            if ticked.is_err() || next.is_none() || self.kept.len() >= self.watch.look_every() {
                self.look()?;
            }
            ticked?;
        }
        if recording {
            self.dev.record(false)?;
        }
        self.watch.end();
        Ok(())
    }

    /// Waits for the steps that were queued and looks at their losses.
    fn look(&mut self) -> Result<()> {
        for (step, images, losses) in self.kept.take(self.dev, &*self.method)? {
            if let Some(what) = finite::loss(&losses) {
                let place = finite::step(self.dev, &*self.method)?;
                return Err(self.not_finite(what, place, step));
            }
            self.add(&losses, images);
        }
        Ok(())
    }

    /// Adds a step's losses to the epoch's, weighted by its images.
    fn add(&mut self, losses: &Losses, images: usize) {
        for (name, loss) in [("loss", losses.total)].into_iter().chain(losses.parts.iter().copied())
        {
            let [sum, weight] = self.state.losses.entry(name.into()).or_default();
            *sum += loss * images as f64;
            *weight += images as f64;
        }
    }

    /// Evaluation, record, checkpoint.
    fn finish(&mut self) -> Result<()> {
        self.check()?;
        let started = Instant::now();
        let scorer = self.method.scorer(self.dev, true)?;
        let Some(score) = unless_stopped(self.evaluate("evaluate", scorer))? else {
            return self.interrupt();
        };
        let eval_s = started.elapsed().as_secs_f64();
        let recipe = &self.method.common().recipe;
        let (last, fresh, eval_size) =
            (self.state.epoch == recipe.epochs, recipe.fresh_kmeans, recipe.eval_size);
        checkpoint::save_epoch(
            &self.folder.epoch(self.state.epoch),
            self.dev,
            &*self.method,
            &self.state.next(),
        )?;
        let labelled = matches!(self.sets.val, PictureSet::Labelled(_));
        let fresh =
            if last && labelled && fresh && self.views() > 0 { self.fresh()? } else { None };
        let images = self.sets.train.images().len() as f64;
        let [kmeans_s, labels_s, train_s] = self.state.seconds;
        let mut losses: std::collections::BTreeMap<String, f64> = self
            .state
            .losses
            .iter()
            .map(|(name, [sum, weight])| (name.clone(), sum / weight))
            .collect();
        let kmeans = &self.state.kmeans;
        let row = EpochRow {
            epoch: self.state.epoch,
            kmeans_s,
            labels_s,
            train_s,
            eval_s,
            images_per_s: images / (kmeans_s + labels_s + train_s),
            kmeans_objective: kmeans.iter().map(|summary| summary.objective).collect(),
            kmeans_imbalance: (!kmeans.is_empty()).then(|| {
                kmeans.iter().map(|summary| summary.imbalance).sum::<f64>() / kmeans.len() as f64
            }),
            loss: losses.remove("loss").unwrap_or_default(),
            losses,
            acc: score.map(|s| s.acc),
            miou: score.map(|s| s.miou),
            miou_present: score.map(|s| s.miou_present),
            eval_size,
            untrained: self.state.untrained,
            fresh,
        };
        // The row first: should the process die in between, resuming drops it and writes it again.
        row.append(&self.folder.metrics())?;
        self.state = self.state.next();
        checkpoint::save(&self.folder.checkpoint(), self.dev, &*self.method, &self.state)
    }

    /// The score of a classifier, where there are labels.
    fn evaluate(&mut self, name: &str, scorer: Classifier) -> Result<Option<Score>> {
        let PictureSet::Labelled(val) = &self.sets.val else { return Ok(None) };
        self.watch.begin(name, val.images.len());
        let mut tick = ticker(self.watch);
        let common = self.method.common();
        let confusion =
            self.evaluator.run(self.dev, &common.net, val, (scorer, View::Plain), &mut tick)?;
        drop(tick);
        self.watch.end();
        let scores = Scores::new(&confusion, &common.recipe.matching.of(&confusion)?, &[])?;
        Ok(Some(Score { acc: scores.acc, miou: scores.miou, miou_present: scores.miou_present }))
    }

    /// The score of a fresh k-means on images without augmentation. Leaves centroids and running
    /// statistics as they were.
    fn fresh(&mut self) -> Result<Option<Score>> {
        let running = self.method.common().net.running(self.dev)?;
        let (common, clustering) = self.method.clustering_mut().expect("there are views");
        let slot = clustering.pseudo()[0][0].centroids;
        let centroids = self.dev.read(slot)?;
        self.watch.begin("fresh k-means", self.sets.train.images().len());
        let mut tick = ticker(self.watch);
        let epoch = self.state.epoch + 1;
        let clustered =
            clustering.fresh_kmeans(common, self.dev, self.sets.train.images(), epoch, &mut tick);
        drop(tick);
        let scored = clustered.and_then(|_| {
            self.watch.end();
            let scorer = self.method.scorer(self.dev, false)?;
            self.evaluate("evaluate", scorer)
        });
        let scored = unless_stopped(scored)?;
        self.dev.write(slot, &centroids)?;
        self.method.common().net.restore_running(self.dev, &running)?;
        scored.map_or_else(|| self.interrupt(), Ok)
    }

    /// Errors: something of the state is not finite. The last step's update has been through no
    /// loss yet, and what it broke must not replace the last good checkpoint.
    fn check(&mut self) -> Result<()> {
        let State { epoch, phase, adam_step, .. } = self.state;
        let clustered = epoch > 1 || phase > Phase::KMeans;
        match finite::state(self.dev, &*self.method, clustered)? {
            Some(what) => Err(self.not_finite(what, None, adam_step)),
            None => Ok(()),
        }
    }

    fn not_finite(&self, what: String, place: Option<String>, step: u64) -> Error {
        let checkpoint = Some(self.folder.checkpoint()).filter(|path| path.exists());
        let place = place.map_or(String::new(), |place| format!(": {place}"));
        Error::NotFinite { what, place, epoch: self.state.epoch, step, checkpoint }
    }

    /// Saves where the run is, and reports the interruption.
    fn interrupt<T>(&mut self) -> Result<T> {
        self.check()?;
        checkpoint::save(&self.folder.checkpoint(), self.dev, &*self.method, &self.state)?;
        Err(self.folder.kept(stop::stopped()))
    }
}
