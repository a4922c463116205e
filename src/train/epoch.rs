//! The phases of an epoch: k-means, pseudo labels, training steps.

use std::time::Instant;

use crate::base::Result;
use crate::device::Engine;
use crate::method::{Algorithm, Evaluator, Losses, Training, ViewPass};
use crate::train::batches::Batches;
use crate::train::checkpoint::{Phase, State};
use crate::train::observer::{ticker, unless_stopped};
use crate::train::unseen::{StepLosses, Unseen};
use crate::train::{Observer, RunFolder, Seen, Sets, finite, outlook};

/// A run in progress: everything that its phases work with.
pub(super) struct Trainer<'a> {
    pub dev: &'a mut dyn Engine,
    pub sets: &'a Sets,
    /// The files of the run.
    pub folder: &'a RunFolder,
    /// Shows progress, and may stop the run.
    pub watch: &'a mut dyn Observer,
    pub method: Box<dyn Algorithm>,
    pub evaluator: Evaluator,
    /// The losses that have not been looked at yet.
    pub unseen: Unseen,
    /// The place in the run; saved in checkpoints.
    pub state: State,
    /// What the network made of the validation images after the last epoch of this process.
    pub seen: Option<Seen>,
}

impl Trainer<'_> {
    /// Runs one epoch, or what is left of it after a resume.
    pub fn epoch(&mut self) -> Result<()> {
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
            let classifier = self.method.classifier(self.dev, false)?;
            let Some(counted) = unless_stopped(self.evaluate("untrained", classifier))? else {
                return self.interrupt();
            };
            self.state.untrained = counted.map(|counted| self.score(&counted)).transpose()?;
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
                self.watch.note(&outlook::duration(left, "the first k-means and labels"));
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

    /// Number of views that are clustered; 0 if the method does not cluster.
    pub(super) fn views(&self) -> usize {
        self.method.clustering().map_or(0, |clustering| clustering.pseudo().len())
    }

    /// Runs a pass without gradients over each view that is clustered. If interrupted, the pass is
    /// undone and begins anew when the run is resumed: it is cheap beside the training steps, and
    /// it can only have changed running statistics and centroids. `clock` is the place of its time
    /// in [`State::seconds`].
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

    /// Clusters each view.
    fn kmeans(&mut self) -> Result<()> {
        self.state.kmeans.clear();
        for view in 0..self.views() {
            let (epoch, mut tick) = (self.state.epoch, ticker(self.watch));
            let pass = ViewPass { epoch, view };
            let (common, clustering) = self.method.clustering_mut().expect("there are views");
            let summary =
                clustering.kmeans(common, self.dev, self.sets.train.images(), pass, &mut tick)?;
            drop(tick);
            if !summary.objective.is_finite() {
                let what =
                    format!("the k-means objective of view {} is {}", view + 1, summary.objective);
                let place = finite::state(self.dev, &*self.method)?;
                return Err(self.not_finite(what, place, self.state.adam_step));
            }
            self.state.kmeans.push(summary);
        }
        Ok(())
    }

    /// Labels each view.
    fn labels(&mut self) -> Result<()> {
        for view in 0..self.views() {
            let (epoch, mut tick) = (self.state.epoch, ticker(self.watch));
            let pass = ViewPass { epoch, view };
            let (common, clustering) = self.method.clustering_mut().expect("there are views");
            clustering.label(common, self.dev, self.sets.train.images(), pass, &mut tick)?;
        }
        Ok(())
    }

    /// Runs the training steps that are left of the epoch.
    fn steps(&mut self) -> Result<()> {
        let done = self.state.step;
        self.method.begin_steps(self.dev, self.state.epoch, done == 0)?;
        let batches =
            Batches::new(&*self.method, self.state.epoch, self.state.adam_step - done as u64);
        self.watch.begin("train", batches.images());
        self.watch.advance((0..done).map(|i| batches.get(i).ids.len()).sum());
        // Where nothing is clustered, the first steps tell how long the run will take.
        let timed = outlook::timed_steps(batches.len());
        let tells =
            self.state.epoch == 1 && done == 0 && self.views() == 0 && timed < batches.len();
        let mut started = Instant::now();
        let mut profiling = false;
        for i in done..batches.len() {
            let batch = batches.get(i);
            let profiled = self.watch.profiled(batch.step);
            if profiled != profiling {
                self.dev.profile(profiled)?;
                profiling = profiled;
            }
            let next = (i + 1 < batches.len()).then(|| batches.get(i + 1));
            let training = Training { batch, next };
            self.unseen.step(self.dev, &mut *self.method, &self.sets.train, training)?;
            self.state.step += 1;
            self.state.adam_step = batch.step;
            let ticked = ticker(self.watch)(batch.ids.len());
            if ticked.is_err() || next.is_none() || self.unseen.len() >= self.watch.look_every() {
                self.look()?;
            }
            ticked?;
            if tells && i == 0 {
                self.look()?;
                started = Instant::now();
            } else if tells && i == timed {
                self.look()?;
                let (recipe, took) = (&self.method.common().recipe, started.elapsed());
                let left =
                    outlook::seconds_of_steps(recipe, batches.len(), timed, took.as_secs_f64());
                self.watch.note(&outlook::duration(left, "the first steps"));
            }
        }
        if profiling {
            self.dev.profile(false)?;
        }
        self.watch.end();
        Ok(())
    }

    /// Waits for the queued steps and looks at their losses. Fails if one is not finite.
    fn look(&mut self) -> Result<()> {
        for StepLosses { step, images, losses } in self.unseen.take(self.dev, &*self.method)? {
            if let Some(what) = finite::loss(&losses) {
                let place = finite::step(self.dev, &*self.method)?;
                return Err(self.not_finite(what, place, step));
            }
            self.add(&losses, images);
        }
        Ok(())
    }

    /// Adds a step's losses to those of the epoch, weighted by its images.
    fn add(&mut self, losses: &Losses, images: usize) {
        for (name, loss) in [("loss", losses.total)].into_iter().chain(losses.parts.iter().copied())
        {
            let [sum, weight] = self.state.losses.entry(name.into()).or_default();
            *sum += loss * images as f64;
            *weight += images as f64;
        }
    }
}
