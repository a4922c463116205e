//! The ops behind the pyramid, timed: features, scores and their losses.

use crate::base::Result;
use crate::device::Slot;
use crate::device::ops::*;
use crate::device::timed::ops::{Planned, moved};
use crate::device::timed::{Timed, Work, bytes};

/// Scores of `k` clusters for every pixel.
fn scores(s: HeadSpec, k: usize) -> f64 {
    2.0 * (s.n * s.pixels() * s.d * k) as f64
}

fn head_shape(s: HeadSpec, k: usize) -> String {
    format!("{}×{}×{}×{}, {k} clusters", s.n, s.h, s.w, s.d)
}

impl<B: Backend> Head for Timed<'_, B> {
    type HeadPlan = Planned<B::HeadPlan, HeadSpec>;

    fn plan_head(&mut self, spec: HeadSpec) -> Result<Self::HeadPlan> {
        Ok(Planned::new(self.dev.plan_head(spec)?, spec))
    }

    fn head_features(
        &mut self,
        p: &Self::HeadPlan,
        features: Slot<f32>,
        input: HeadInput<B::Act>,
    ) -> Result<()> {
        let name = format!("head_features {}", head_shape(p.spec, 0));
        let work = moved(bytes![features, input.laterals]);
        self.time(name, work, |dev| dev.head_features(&p.plan, features, input))
    }

    fn head_assign(
        &mut self,
        p: &Self::HeadPlan,
        labels: Slot<u16>,
        counts: Slot<u32>,
        input: HeadInput<B::Act>,
        index: Slot<u32>,
        classifier: Classifier,
    ) -> Result<()> {
        let k = classifier.k;
        let name = format!("head_assign {}", head_shape(p.spec, k));
        let labelled = (p.spec.n * p.spec.pixels() * 2) as f64;
        let work = Work { bytes: labelled + bytes![input.laterals], flops: scores(p.spec, k) };
        self.time(name, work, |dev| {
            dev.head_assign(&p.plan, labels, counts, input, index, classifier)
        })
    }

    fn head_accumulate(
        &mut self,
        p: &Self::HeadPlan,
        sums: Slot<f32>,
        counts: Slot<u32>,
        score: Slot<f32>,
        input: HeadInput<B::Act>,
        classifier: Classifier,
    ) -> Result<()> {
        let k = classifier.k;
        let name = format!("head_accumulate {}", head_shape(p.spec, k));
        let work = Work { bytes: bytes![input.laterals], flops: scores(p.spec, k) };
        self.time(name, work, |dev| {
            dev.head_accumulate(&p.plan, sums, counts, score, input, classifier)
        })
    }

    fn head_loss(
        &mut self,
        p: &Self::HeadPlan,
        losses: Slot<f32>,
        dlaterals: [Slot<B::Act>; 4],
        input: HeadInput<B::Act>,
        loss: LossInput<'_>,
    ) -> Result<()> {
        let k = loss.targets.iter().map(|t| t.classifier.k).sum();
        let name = format!("head_loss {}", head_shape(p.spec, k));
        // Scores, and the gradient of the features from those of the scores.
        let work =
            Work { bytes: bytes![dlaterals, input.laterals], flops: 2.0 * scores(p.spec, k) };
        self.time(name, work, |dev| dev.head_loss(&p.plan, losses, dlaterals, input, loss))
    }

    fn head_scores(
        &mut self,
        p: &Self::HeadPlan,
        out: Slot<f32>,
        input: HeadInput<B::Act>,
        classifier: Classifier,
    ) -> Result<()> {
        let k = classifier.k;
        let name = format!("head_scores {}", head_shape(p.spec, k));
        let work = Work { bytes: bytes![out, input.laterals], flops: scores(p.spec, k) };
        self.time(name, work, |dev| dev.head_scores(&p.plan, out, input, classifier))
    }

    fn head_scores_backward(
        &mut self,
        p: &Self::HeadPlan,
        dlaterals: Option<[Slot<B::Act>; 4]>,
        dw: Slot<f32>,
        db: Slot<f32>,
        dscores: Slot<f32>,
        input: HeadInput<B::Act>,
        classifier: Classifier,
    ) -> Result<()> {
        let k = classifier.k;
        let name = format!("head_scores_backward {}", head_shape(p.spec, k));
        // The classifier's gradient, and that of the features.
        let products = if dlaterals.is_some() { 2.0 } else { 1.0 };
        let gradients = dlaterals.map_or(0.0, |d| bytes![d]);
        let work = Work {
            bytes: gradients + bytes![dscores, input.laterals],
            flops: products * scores(p.spec, k),
        };
        self.time(name, work, |dev| {
            dev.head_scores_backward(&p.plan, dlaterals, dw, db, dscores, input, classifier)
        })
    }

    fn head_predict(
        &mut self,
        p: &Self::HeadPlan,
        pred: Slot<u16>,
        out: (usize, usize),
        input: HeadInput<B::Act>,
        classifier: Classifier,
    ) -> Result<()> {
        let k = classifier.k;
        let name = format!("head_predict {}", head_shape(p.spec, k));
        let work = Work { bytes: bytes![pred, input.laterals], flops: scores(p.spec, k) };
        self.time(name, work, |dev| dev.head_predict(&p.plan, pred, out, input, classifier))
    }
}

fn rows_shape(s: SoftmaxSpec) -> String {
    format!("{}×{}×{}", s.n, s.pixels, s.k)
}

impl<B: Backend> Softmax for Timed<'_, B> {
    type SoftmaxPlan = Planned<B::SoftmaxPlan, SoftmaxSpec>;

    fn plan_softmax(&mut self, spec: SoftmaxSpec) -> Result<Self::SoftmaxPlan> {
        Ok(Planned::new(self.dev.plan_softmax(spec)?, spec))
    }

    fn softmax_forward(&mut self, p: &Self::SoftmaxPlan, x: Slot<f32>) -> Result<()> {
        let name = format!("softmax_forward {}", rows_shape(p.spec));
        self.time(name, moved(bytes![x, x]), |dev| dev.softmax_forward(&p.plan, x))
    }

    fn softmax_backward(
        &mut self,
        plan: &Self::SoftmaxPlan,
        dp: Slot<f32>,
        p: Slot<f32>,
    ) -> Result<()> {
        let name = format!("softmax_backward {}", rows_shape(plan.spec));
        self.time(name, moved(bytes![dp, dp, p]), |dev| dev.softmax_backward(&plan.plan, dp, p))
    }

    fn softmax_loss(
        &mut self,
        p: &Self::SoftmaxPlan,
        losses: Slot<f32>,
        scores: Slot<f32>,
        labels: SoftmaxLabels,
        scale: f32,
    ) -> Result<()> {
        let name = format!("softmax_loss {}", rows_shape(p.spec));
        // Labels twice: the mean's divisor comes first.
        let labelled = (2 * p.spec.rows() * size_of::<u16>()) as f64;
        let work = moved(labelled + bytes![scores, scores]);
        self.time(name, work, |dev| dev.softmax_loss(&p.plan, losses, scores, labels, scale))
    }
}
