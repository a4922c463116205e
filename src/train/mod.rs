//! The loop: k-means, labels, training and evaluation of each epoch; what is saved when, and what happens on Ctrl-C.

mod checkpoint;
mod measure;
mod run;

pub use checkpoint::Trained;
pub use measure::{EpochSeconds, Measured};
pub use run::{Host, RunFolder, Settings};

use std::time::Instant;

use crate::base::rng::Stream;
use crate::base::{Error, Result};
use crate::data::{EvalStore, ImageStore};
use crate::device::ops::Backend;
use crate::device::{Layout, Pool};
use crate::eval::record::{self, EpochRow, Score};
use crate::eval::{Scores, hungarian};
use crate::method::{Evaluator, Picie};
use crate::net::weights;
use crate::recipe::Recipe;
use crate::train::checkpoint::{Phase, State};

/// Who watches a run.
pub trait Observer {
    /// A phase of `images` images begins.
    fn begin(&mut self, phase: &str, images: usize);
    /// `images` more are done.
    fn advance(&mut self, images: usize);
    /// The phase is complete.
    fn end(&mut self);
    /// Whether to stop after the present batch.
    fn interrupted(&self) -> bool;
    /// Whether a profiler records optimizer step `step` (from 1).
    fn profiled(&self, step: u64) -> bool;
}

/// Images to learn from, and images to look at.
pub struct Sets {
    pub train: ImageStore,
    pub val: Val,
}

pub enum Val {
    /// To evaluate on.
    Labelled(Box<EvalStore>),
    /// For pictures only.
    Plain(ImageStore),
}

impl Val {
    pub fn images(&self) -> &ImageStore {
        match self {
            Val::Labelled(set) => &set.images,
            Val::Plain(images) => images,
        }
    }

    fn classes(&self) -> usize {
        match self {
            Val::Labelled(set) => set.taxonomy.classes.len(),
            Val::Plain(_) => 0,
        }
    }
}

/// What a finished run leaves in memory for its pictures.
pub struct Outcome<B: Backend> {
    pub picie: Picie<B>,
    pub evaluator: Evaluator<B>,
    /// From `metrics.jsonl`, all epochs.
    pub rows: Vec<EpochRow>,
}

struct Trainer<'a, B: Backend> {
    dev: &'a mut B,
    sets: &'a Sets,
    folder: &'a RunFolder,
    watch: &'a mut dyn Observer,
    picie: Picie<B>,
    evaluator: Evaluator<B>,
    state: State,
}

/// What a run will do, and where every tensor of it will lie.
pub struct Plan<B: Backend> {
    layout: Layout,
    picie: Picie<B>,
    evaluator: Evaluator<B>,
}

impl<B: Backend> Plan<B> {
    /// What the engine chose, and the memory, pool by pool.
    pub fn text(&self, dev: &B) -> String {
        dev.choices().into_iter().chain([self.layout.to_string()]).collect::<Vec<_>>().join("\n")
    }
}

/// Nothing is allocated yet.
pub fn plan<B: Backend>(dev: &mut B, settings: &Settings, sets: &Sets) -> Result<Plan<B>> {
    let recipe = &settings.recipe;
    let mut layout = Layout::default();
    let picie = Picie::plan(dev, &mut layout, recipe.clone(), settings.seed, sets.train.len())?;
    let set = (sets.val.images().len(), recipe.batch_cluster, recipe.size);
    let shape = (recipe.clusters, sets.val.classes(), recipe.merge);
    let evaluator = Evaluator::plan(dev, &mut layout, &picie.net, set, shape, None)?;
    // Only for the plan's readers: engines reserve their scratch by themselves.
    layout.take::<u8>(Pool::Scratch, "the largest op's", dev.scratch_bytes());
    Ok(Plan { layout, picie, evaluator })
}

/// Plans, starts or resumes, and trains to the end. A run begins, that is its settings are written, once everything is known to
/// be in order: until then an error leaves nothing behind.
pub fn train<B: Backend>(
    dev: &mut B,
    folder: &RunFolder,
    settings: &Settings,
    sets: &Sets,
    resume: bool,
    watch: &mut dyn Observer,
) -> Result<Outcome<B>> {
    let recipe = &settings.recipe;
    let images = sets.train.len();
    let plan = plan(dev, settings, sets)?;
    let text = plan.text(dev);
    let Plan { layout, mut picie, evaluator } = plan;
    dev.reserve(&layout).map_err(|e| name_batches(e, recipe))?;
    picie.load_images(dev, &sets.train)?;
    picie.net.init(dev, settings.seed)?;
    let fingerprint = sets.train.fingerprint();
    let state = if resume && folder.checkpoint().exists() {
        checkpoint::load(&folder.checkpoint(), dev, &picie, recipe, settings.seed, (images, fingerprint))?
    } else {
        if let Some(path) = &settings.weights {
            // ImageNet weights have no pyramid: it keeps its random start.
            picie.net.load(dev, &weights::load(path, &crate::net::expected(crate::net::Architecture::RESNET18))?.0)?;
        }
        State::begin(recipe.clone(), settings.seed, (images, fingerprint))
    };
    if !resume {
        folder.write_settings(settings)?;
    }
    folder.write_plan(&text)?;
    record::truncate_from(&folder.metrics(), state.epoch)?;
    let mut trainer = Trainer { dev, sets, folder, watch, picie, evaluator, state };
    while trainer.state.epoch <= recipe.epochs {
        trainer.dev.enter(&format!("epoch {}", trainer.state.epoch));
        let done = trainer.epoch();
        trainer.dev.leave();
        done?;
    }
    let (picie, evaluator) = (trainer.picie, trainer.evaluator);
    Ok(Outcome { picie, evaluator, rows: record::read(&folder.metrics())? })
}

/// Says of a plan that is too large which batches would fit.
fn name_batches(e: Error, recipe: &Recipe) -> Error {
    let Error::Memory { share: Some(share), .. } = e else { return e };
    let part = |batch: usize| ((batch as f64 * share) as usize).max(1);
    let [batch, cluster] = [recipe.batch, recipe.batch_cluster].map(part);
    let remedy = format!("--batch {batch} --batch-cluster {cluster} would fit; --size and --init-batches count too");
    Error::input(e.to_string().split("; ").next().unwrap_or_default(), remedy)
}

/// Whether a pass ended by Ctrl-C; any other error is passed on.
fn stopped(result: Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(false),
        Err(Error::Interrupted { .. }) => Ok(true),
        Err(e) => Err(e),
    }
}

impl<B: Backend> Trainer<'_, B> {
    fn epoch(&mut self) -> Result<()> {
        if self.state.phase == Phase::KMeans {
            self.pass("k-means", 0, Self::kmeans)?;
            self.state.phase = Phase::Labels;
        }
        if self.state.epoch == 1 && self.state.untrained.is_none() && self.state.phase == Phase::Labels {
            self.state.untrained = self.evaluate("untrained")?;
        }
        if self.state.phase == Phase::Labels {
            self.pass("labels", 1, Self::labels)?;
            self.state.phase = Phase::Train;
        }
        let started = Instant::now();
        self.dev.enter("train");
        let trained = self.steps();
        self.dev.leave();
        self.state.seconds[2] += started.elapsed().as_secs_f64();
        if stopped(trained)? {
            return self.interrupt();
        }
        self.finish()
    }

    /// A pass without gradients. Interrupted, it is forgotten and begins anew when resumed: it is cheap beside the training steps,
    /// and all it can have changed are running statistics.
    fn pass(&mut self, name: &str, clock: usize, pass: fn(&mut Self) -> Result<()>) -> Result<()> {
        let started = Instant::now();
        let running = self.picie.net.running(self.dev)?;
        self.watch.begin(name, 2 * self.sets.train.len());
        self.dev.enter(name);
        let passed = pass(self);
        self.dev.leave();
        if stopped(passed)? {
            self.picie.net.restore_running(self.dev, &running)?;
            return self.interrupt();
        }
        self.watch.end();
        self.state.seconds[clock] = started.elapsed().as_secs_f64();
        Ok(())
    }

    fn kmeans(&mut self) -> Result<()> {
        self.state.kmeans.clear();
        for view in 0..2 {
            let mut tick = ticker(self.watch, self.folder);
            let summary = self.picie.kmeans(self.dev, &self.sets.train, self.state.epoch, view, &mut tick)?;
            drop(tick);
            if !summary.objective.is_finite() {
                return Err(self.not_finite(f32::NAN));
            }
            self.state.kmeans.push(summary.into());
        }
        Ok(())
    }

    fn labels(&mut self) -> Result<()> {
        for view in 0..2 {
            let mut tick = ticker(self.watch, self.folder);
            self.picie.label(self.dev, &self.sets.train, self.state.epoch, view, &mut tick)?;
        }
        Ok(())
    }

    /// The training steps that are left of the epoch.
    fn steps(&mut self) -> Result<()> {
        self.picie.prepare(self.dev)?;
        let order = self.picie.order(Stream::TrainOrder, self.state.epoch);
        let batch = self.picie.recipe.batch;
        self.watch.begin("train", order.len());
        self.watch.advance((self.state.step * batch).min(order.len()));
        let mut recording = false;
        let mut batches = order.chunks(batch).skip(self.state.step).peekable();
        while let Some(ids) = batches.next() {
            let step = self.state.adam_step + 1;
            let profiled = self.watch.profiled(step);
            if profiled != recording {
                self.dev.record(profiled)?;
                recording = profiled;
            }
            let ids_and_next = (ids, batches.peek().copied());
            let losses = self.picie.step(self.dev, &self.sets.train, ids_and_next, self.state.epoch, step)?;
            if !losses.total().is_finite() {
                self.state.step += 1;
                return Err(self.not_finite(losses.total() as f32));
            }
            self.state.losses[0] += losses.within * ids.len() as f64;
            self.state.losses[1] += losses.cross * ids.len() as f64;
            self.state.step += 1;
            self.state.adam_step = step;
            ticker(self.watch, self.folder)(ids.len())?;
        }
        if recording {
            self.dev.record(false)?;
        }
        self.watch.end();
        Ok(())
    }

    /// Evaluation, record, checkpoint.
    fn finish(&mut self) -> Result<()> {
        // The last step's update has not been through a loss yet; what it broke must not replace the last good checkpoint.
        if !self.picie.net.is_finite(self.dev)? {
            return Err(self.not_finite(f32::NAN));
        }
        let started = Instant::now();
        let score = self.evaluate("evaluate")?;
        let eval_s = started.elapsed().as_secs_f64();
        checkpoint::save_epoch(&self.folder.epoch(self.state.epoch), self.dev, &self.picie, &self.state.next())?;
        let last = self.state.epoch == self.picie.recipe.epochs;
        let labelled = matches!(self.sets.val, Val::Labelled(_));
        let fresh = if last && labelled && self.picie.recipe.fresh_kmeans { self.fresh()? } else { None };
        let images = self.sets.train.len() as f64;
        let [kmeans_s, labels_s, train_s] = self.state.seconds;
        let [loss_within, loss_cross] = self.state.losses.map(|sum| sum / images);
        let kmeans = &self.state.kmeans;
        let row = EpochRow {
            epoch: self.state.epoch,
            kmeans_s,
            labels_s,
            train_s,
            eval_s,
            images_per_s: images / (kmeans_s + labels_s + train_s),
            kmeans_objective: [kmeans[0].objective, kmeans[1].objective],
            kmeans_imbalance: (kmeans[0].imbalance + kmeans[1].imbalance) / 2.0,
            loss: (loss_within + loss_cross) / 2.0,
            loss_within,
            loss_cross,
            acc: score.map(|s| s.acc),
            miou: score.map(|s| s.miou),
            miou_present: score.map(|s| s.miou_present),
            untrained: self.state.untrained,
            fresh,
        };
        // The row first: should the process die in between, resuming drops it and writes it again.
        row.append(&self.folder.metrics())?;
        self.state = self.state.next();
        checkpoint::save(&self.folder.checkpoint(), self.dev, &self.picie, &self.state)
    }

    /// The score of view 1's centroids, where there are labels.
    fn evaluate(&mut self, name: &str) -> Result<Option<Score>> {
        let Val::Labelled(val) = &self.sets.val else { return Ok(None) };
        self.watch.begin(name, val.images.len());
        // NOTE: an interrupt waits for the end of the evaluation, which is short and changes nothing.
        let watch = &mut *self.watch;
        let mut tick = |n| {
            watch.advance(n);
            Ok(())
        };
        let (centroids, metric) = (self.picie.centroids[0], self.picie.recipe.score_metric);
        let confusion = self.evaluator.run(self.dev, &self.picie.net, val, centroids, metric, &mut tick)?;
        self.watch.end();
        let scores = Scores::new(&confusion, &hungarian(&confusion), &[])?;
        Ok(Some(Score { acc: scores.acc, miou: scores.miou, miou_present: scores.miou_present }))
    }

    /// The score of a fresh k-means on images without augmentation. Leaves centroids and running statistics as they were.
    fn fresh(&mut self) -> Result<Option<Score>> {
        let running = self.picie.net.running(self.dev)?;
        let centroids = self.dev.read(self.picie.centroids[0])?;
        self.watch.begin("fresh k-means", self.sets.train.len());
        let mut tick = ticker(self.watch, self.folder);
        let clustered = self.picie.fresh_kmeans(self.dev, &self.sets.train, self.state.epoch + 1, &mut tick);
        drop(tick);
        let stopped = stopped(clustered.map(|_| ()))?;
        let score = if stopped {
            None
        } else {
            self.watch.end();
            self.evaluate("evaluate")?
        };
        self.dev.write(self.picie.centroids[0], &centroids)?;
        self.picie.net.restore_running(self.dev, &running)?;
        if stopped { self.interrupt() } else { Ok(score) }
    }

    fn not_finite(&self, loss: f32) -> Error {
        let State { epoch, step, .. } = self.state;
        let checkpoint = Some(self.folder.checkpoint()).filter(|path| path.exists());
        Error::NotFinite { epoch, step, loss, checkpoint }
    }

    /// Saves where the run is, and reports the interruption.
    fn interrupt<T>(&mut self) -> Result<T> {
        checkpoint::save(&self.folder.checkpoint(), self.dev, &self.picie, &self.state)?;
        Err(Error::Interrupted { run: self.folder.path.clone() })
    }
}

/// Counts images, and stops the pass where the observer asks for it.
fn ticker<'a>(watch: &'a mut dyn Observer, folder: &'a RunFolder) -> impl FnMut(usize) -> Result<()> + 'a {
    move |images| {
        watch.advance(images);
        if watch.interrupted() { Err(Error::Interrupted { run: folder.path.clone() }) } else { Ok(()) }
    }
}
