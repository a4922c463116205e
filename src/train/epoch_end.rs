//! The end of an epoch (scores, its row in `metrics.jsonl`, checkpoint), and the end of a run that
//! stops early.

use std::time::Instant;

use crate::augment::View;
use crate::base::stats::spread;
use crate::base::{Error, Result, stop};
use crate::data::PictureSet;
use crate::device::ops::Classifier;
use crate::eval::epochs::{EpochRow, Score};
use crate::eval::{Confusion, Scores, Segment};
use crate::train::checkpoint;
use crate::train::epoch::Trainer;
use crate::train::finite;
use crate::train::observer::{ticker, unless_stopped};
use crate::train::{SHOWN, Seen};

impl Trainer<'_> {
    /// Evaluates the epoch, writes its row, saves it, and begins the next one.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.check()?;
        let started = Instant::now();
        let Some(seen) = unless_stopped(self.see())? else {
            return self.interrupt();
        };
        let score = seen.confusion.as_ref().map(|counted| self.score(counted)).transpose()?;
        let eval_s = started.elapsed().as_secs_f64();
        let recipe = &self.method.common().recipe;
        let (last, fresh, eval_size) =
            (self.state.epoch == recipe.epochs, recipe.fresh_kmeans, recipe.eval_size);
        self.state.segments = seen.segments.clone();
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
        // The row is written first: if the process dies before the checkpoint is written, resuming
        // drops the row and writes it again.
        row.append(&self.folder.metrics())?;
        self.state = self.state.next();
        checkpoint::save(&self.folder.checkpoint(), self.dev, &*self.method, &self.state)?;
        self.watch.epoch(&row, &seen);
        self.seen = Some(seen);
        Ok(())
    }

    /// What the network makes of the validation images.
    pub(super) fn see(&mut self) -> Result<Seen> {
        let classifier = self.method.classifier(self.dev, true)?;
        let shown = spread(self.sets.val.images().len(), SHOWN);
        self.evaluator.keep(shown.clone());
        let confusion = self.evaluate("evaluate", classifier)?;
        let clusters = if confusion.is_some() {
            self.evaluator.kept().to_vec()
        } else {
            let (images, net) = (self.sets.val.images(), &self.method.common().net);
            self.evaluator.predict(self.dev, net, images, classifier, &shown)?
        };
        self.evaluator.keep(Vec::new());
        let segments = match (&self.sets.val, &confusion) {
            (PictureSet::Labelled(val), Some(confusion)) => {
                let class_of = self.method.common().recipe.matching.in_pictures(confusion)?;
                Segment::matched(&Segment::classes(val.taxonomy.classes), &class_of)
            }
            _ => self.state.segments.clone(),
        };
        Ok(Seen { confusion, shown, clusters, segments })
    }

    /// The score of a confusion matrix under the recipe's matching.
    pub(super) fn score(&self, confusion: &Confusion) -> Result<Score> {
        let matching = self.method.common().recipe.matching;
        let scores = Scores::new(confusion, &matching.of(confusion)?, &[])?;
        Ok(Score { acc: scores.acc, miou: scores.miou, miou_present: scores.miou_present })
    }

    /// The confusion matrix of a classifier on the validation images. `None` if they have no
    /// labels.
    pub(super) fn evaluate(
        &mut self,
        name: &str,
        classifier: Classifier,
    ) -> Result<Option<Confusion>> {
        let PictureSet::Labelled(val) = &self.sets.val else { return Ok(None) };
        self.watch.begin(name, val.images.len());
        let mut tick = ticker(self.watch);
        let common = self.method.common();
        let confusion =
            self.evaluator.run(self.dev, &common.net, val, classifier, View::Plain, &mut tick)?;
        drop(tick);
        self.watch.end();
        Ok(Some(confusion))
    }

    /// The score of a fresh k-means on images without augmentation. Centroids and running
    /// statistics are put back afterwards.
    fn fresh(&mut self) -> Result<Option<Score>> {
        let running = self.method.common().net.running(self.dev)?;
        let (common, clustering) = self.method.clustering_mut().expect("there are views");
        let slot = clustering.pseudo()[0][0].scorer.centroids;
        let centroids = self.dev.read(slot)?;
        self.watch.begin("fresh k-means", self.sets.train.images().len());
        let mut tick = ticker(self.watch);
        let epoch = self.state.epoch + 1;
        let clustered =
            clustering.fresh_kmeans(common, self.dev, self.sets.train.images(), epoch, &mut tick);
        drop(tick);
        let scored = clustered.and_then(|_| {
            self.watch.end();
            let classifier = self.method.classifier(self.dev, false)?;
            let confusion = self.evaluate("evaluate", classifier)?;
            confusion.map(|counted| self.score(&counted)).transpose()
        });
        let scored = unless_stopped(scored)?;
        self.dev.write(slot, &centroids)?;
        self.method.common().net.restore_running(self.dev, &running)?;
        scored.map_or_else(|| self.interrupt(), Ok)
    }

    /// Fails if a number in the state is not finite. The last step's update has not been tested by
    /// any loss yet, and if it broke something, that must not replace the last good checkpoint.
    pub(super) fn check(&mut self) -> Result<()> {
        match finite::state(self.dev, &*self.method)? {
            Some(what) => Err(self.not_finite(what, None, self.state.adam_step)),
            None => Ok(()),
        }
    }

    /// The error for a number that is not finite, with the checkpoint to start from, if any.
    pub(super) fn not_finite(&self, what: String, place: Option<String>, step: u64) -> Error {
        let checkpoint = Some(self.folder.checkpoint()).filter(|path| path.exists());
        let place = place.map_or(String::new(), |place| format!(": {place}"));
        Error::NotFinite { what, place, epoch: self.state.epoch, step, checkpoint }
    }

    /// Saves the state of the run, and fails with the interruption.
    pub(super) fn interrupt<T>(&mut self) -> Result<T> {
        self.check()?;
        checkpoint::save(&self.folder.checkpoint(), self.dev, &*self.method, &self.state)?;
        Err(self.folder.kept(stop::stopped()))
    }
}
