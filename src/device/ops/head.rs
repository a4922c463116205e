//! From the four lateral maps to features, labels, sums, or loss and gradients, without a public
//! feature map in between.
//!
//! merge → warp → F̂ = F/max(‖F‖₂, 1e-12) along the d channels, pixel by pixel (`unit`; else F̂ =
//! F); then one of the ops below.
//! * `Merge::Direct` (supplement S1): F = p2 + up(p3) + up(p4) + up(p5), each resampled straight to
//!   p2's size.
//! * `Merge::Cascade` (released code): F = p2 + up(p3 + up(p4 + up(p5))), each step to the next
//!   map's size.
//!
//! A head of fewer `levels` has the first of them only: F = p2 + up(p3) + … . A cascade has all
//! four.
//!
//! up is bilinear, align_corners = false. The warp resamples F by a [`Crop`] in units of F's
//! pixels; `Crop::whole` is none.

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};
use crate::device::ops::{Crop, Memory, want};
use crate::device::{Element, Slot};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Merge {
    /// Each level resampled straight to the finest, and summed.
    Direct,
    /// Level by level, each step twice as large.
    Cascade,
}

/// Laterals p2 (n, h, w, d), p3 (n, ⌈h/2⌉, ⌈w/2⌉, d), p4 (… of that …), p5; labels and features (n,
/// h, w).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeadSpec {
    pub n: usize,
    pub h: usize,
    pub w: usize,
    pub d: usize,
    /// The largest number of clusters a classifier has.
    pub k: usize,
    pub merge: Merge,
    /// Laterals that there are, from p2 on: 1 to 4. The slots of others are empty.
    pub levels: usize,
    /// Features are divided by their norm.
    pub unit: bool,
}

/// The most targets that one [`Head::head_loss`] takes.
pub(crate) const MOST_TARGETS: usize = 4;

impl HeadSpec {
    pub fn pixels(&self) -> usize {
        self.h * self.w
    }

    /// Height and width of p2, p3, p4, p5.
    pub fn sizes(&self) -> [(usize, usize); 4] {
        let half = |(h, w): (usize, usize)| (h.div_ceil(2), w.div_ceil(2));
        let s2 = (self.h, self.w);
        let s3 = half(s2);
        let s4 = half(s3);
        [s2, s3, s4, half(s4)]
    }

    /// 0 of a level that there is not.
    pub fn lateral_len(&self, level: usize) -> usize {
        let (h, w) = self.sizes()[level];
        if level < self.levels { self.n * h * w * self.d } else { 0 }
    }

    /// What no engine plans.
    pub(crate) fn check(&self) -> Result<()> {
        if self.n * self.pixels() * self.d * self.k == 0 {
            return Err(Error::input(
                format!("a head without content: {self:?}"),
                "give every size at least 1",
            ));
        }
        if self.k > 1 << 16 {
            let what = format!("{} clusters do not fit into labels of 16 bits", self.k);
            return Err(Error::input(what, "use at most 65536 --clusters"));
        }
        if !(1..=4).contains(&self.levels) {
            return Err(Error::input(
                format!("a head of {} levels", self.levels),
                "give it 1 to 4",
            ));
        }
        if self.merge == Merge::Cascade && self.levels < 4 {
            return Err(Error::input(
                format!("a cascade of {} levels", self.levels),
                "use --merge direct",
            ));
        }
        Ok(())
    }

    pub(crate) fn check_input<A: Element>(
        &self,
        op: &'static str,
        input: &HeadInput<A>,
    ) -> Result<()> {
        for (level, what) in ["p2", "p3", "p4", "p5"].into_iter().enumerate() {
            want(op, what, input.laterals[level], self.lateral_len(level))?;
        }
        input.crops.map_or(Ok(()), |crops| want(op, "crops", crops, self.n))
    }

    pub(crate) fn check_classifier(&self, op: &'static str, c: Classifier) -> Result<()> {
        if c.k == 0 || c.k > self.k {
            return Err(Error::Shape { op, what: "a classifier", got: c.k, want: self.k });
        }
        want(op, "w", c.w, c.k * self.d)?;
        want(op, "b", c.b, c.k)
    }

    /// Label maps are whole images of this size. Returns how many.
    pub(crate) fn check_labels(
        &self,
        op: &'static str,
        labels: Slot<u16>,
        index: Slot<u32>,
    ) -> Result<usize> {
        let images = labels.len / self.pixels();
        want(op, "labels", labels, images.max(1) * self.pixels())?;
        want(op, "index", index, self.n)?;
        Ok(images)
    }

    fn check_gradients<A: Element>(&self, op: &'static str, dlaterals: [Slot<A>; 4]) -> Result<()> {
        self.check_input(op, &HeadInput { laterals: dlaterals, crops: None })
    }

    /// The door of [`Head::head_loss`]. Returns the images that all label stores have.
    pub(crate) fn check_loss<A: Element>(
        &self,
        losses: Slot<f32>,
        dlaterals: [Slot<A>; 4],
        input: &HeadInput<A>,
        loss: &LossInput,
    ) -> Result<usize> {
        const OP: &str = "head_loss";
        self.check_input(OP, input)?;
        self.check_gradients(OP, dlaterals)?;
        let count = loss.targets.len();
        if !(1..=MOST_TARGETS).contains(&count) {
            return Err(Error::input(format!("a loss against {count} targets"), "give it 1 to 4"));
        }
        want(OP, "losses", losses, count * self.n)?;
        let mut images = usize::MAX;
        for target in loss.targets {
            self.check_classifier(OP, target.classifier)?;
            images = images.min(self.check_labels(OP, target.labels, loss.index)?);
            want(OP, "weights", target.weights, target.classifier.k)?;
        }
        if loss.view == 0 || !self.n.is_multiple_of(loss.view) {
            let what = format!("views of {} images do not divide a batch of {}", loss.view, self.n);
            return Err(Error::input(what, "make the batch a multiple of the view"));
        }
        Ok(images)
    }

    /// The door of [`Head::head_predict`]. Returns the views of each image.
    pub(crate) fn check_predict<A: Element>(
        &self,
        pred: Slot<u16>,
        out: (usize, usize),
        input: &HeadInput<A>,
        classifier: Classifier,
    ) -> Result<usize> {
        const OP: &str = "head_predict";
        self.check_input(OP, input)?;
        self.check_classifier(OP, classifier)?;
        let pixels = out.0 * out.1;
        if pixels == 0 {
            return Err(Error::input(
                format!("a prediction of {}×{} pixels", out.0, out.1),
                "ask for at least 1×1",
            ));
        }
        let views = if 2 * pred.len == self.n * pixels { 2 } else { 1 };
        want(OP, "pred", pred, self.n / views * pixels)?;
        Ok(views)
    }

    /// The door of [`Head::head_scores`].
    pub(crate) fn check_scores<A: Element>(
        &self,
        op: &'static str,
        scores: Slot<f32>,
        input: &HeadInput<A>,
        classifier: Classifier,
    ) -> Result<()> {
        self.check_input(op, input)?;
        self.check_classifier(op, classifier)?;
        want(op, "scores", scores, self.n * self.pixels() * classifier.k)
    }

    /// The door of [`Head::head_scores_backward`].
    pub(crate) fn check_scores_backward<A: Element>(
        &self,
        dlaterals: Option<[Slot<A>; 4]>,
        (dw, db): (Slot<f32>, Slot<f32>),
        dscores: Slot<f32>,
        input: &HeadInput<A>,
        classifier: Classifier,
    ) -> Result<()> {
        const OP: &str = "head_scores_backward";
        self.check_scores(OP, dscores, input, classifier)?;
        want(OP, "dw", dw, classifier.w.len)?;
        want(OP, "db", db, classifier.k)?;
        dlaterals.map_or(Ok(()), |d| self.check_gradients(OP, d))
    }
}

pub struct HeadInput<A> {
    /// p2, p3, p4, p5; empty where there is none.
    pub laterals: [Slot<A>; 4],
    /// (n), None: no image is warped.
    pub crops: Option<Slot<Crop>>,
}

impl<A> Clone for HeadInput<A> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<A> Copy for HeadInput<A> {}

/// scores = F̂·wᵀ + b.
#[derive(Clone, Copy, Debug)]
pub struct Classifier {
    /// (k, d)
    pub w: Slot<f32>,
    /// (k)
    pub b: Slot<f32>,
    pub k: usize,
}

/// One cross-entropy: a classifier's scores against stored labels.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub classifier: Classifier,
    /// (images of the data set, h, w)
    pub labels: Slot<u16>,
    /// Class weights (k).
    pub weights: Slot<f32>,
    /// The gradient is that of Σ over targets of scale · Σ over views of the mean.
    pub scale: f32,
}

/// What a loss reads beside the laterals. Image i of the batch has label row `index[i]` of each
/// target.
#[derive(Clone, Copy, Debug)]
pub struct LossInput<'a> {
    /// 1 to 4.
    pub targets: &'a [Target],
    /// (n)
    pub index: Slot<u32>,
    /// Images of one view: images 0..view are view 1, view..2·view view 2 …; each view and target
    /// has a mean of its own.
    pub view: usize,
}

pub trait Head: Memory {
    type HeadPlan: Clone;

    fn plan_head(&mut self, spec: HeadSpec) -> Result<Self::HeadPlan>;

    /// features (n, h, w, d) = F̂.
    fn head_features(
        &mut self,
        plan: &Self::HeadPlan,
        features: Slot<f32>,
        input: HeadInput<Self::Act>,
    ) -> Result<()>;

    /// labels (images of the data set, h, w): row index[i] = arg-max of image i's scores (the first
    /// of equals), other rows stay; counts (k) += pixels of each label.
    fn head_assign(
        &mut self,
        plan: &Self::HeadPlan,
        labels: Slot<u16>,
        counts: Slot<u32>,
        input: HeadInput<Self::Act>,
        index: Slot<u32>,
        classifier: Classifier,
    ) -> Result<()>;

    /// With the arg-max a of each pixel: sums (k, d) += F̂ into row a, counts (k) += 1 into a,
    /// score (1) += score of a.
    fn head_accumulate(
        &mut self,
        plan: &Self::HeadPlan,
        sums: Slot<f32>,
        counts: Slot<u32>,
        score: Slot<f32>,
        input: HeadInput<Self::Act>,
        classifier: Classifier,
    ) -> Result<()>;

    /// losses (n, targets) = image i's share of the mean weighted cross-entropy (torch's: Σ w[y]·ℓ
    /// / Σ w[y] over its view's pixels) against each target; dlaterals = gradient of Σ over targets
    /// of `scale` · Σ losses. Where Σ w[y] is 0 both are 0, not NaN. A norm below 1e-12 is the
    /// constant 1e-12 to the gradient, as in torch.
    fn head_loss(
        &mut self,
        plan: &Self::HeadPlan,
        losses: Slot<f32>,
        dlaterals: [Slot<Self::Act>; 4],
        input: HeadInput<Self::Act>,
        loss: LossInput<'_>,
    ) -> Result<()>;

    /// scores (n, h, w, k) = F̂·wᵀ + b.
    fn head_scores(
        &mut self,
        plan: &Self::HeadPlan,
        scores: Slot<f32>,
        input: HeadInput<Self::Act>,
        classifier: Classifier,
    ) -> Result<()>;

    /// The gradient of [`Head::head_scores`] from dscores (n, h, w, k): dlaterals = (None: not
    /// wanted), dw (k, d) +=, db (k) +=.
    #[allow(clippy::too_many_arguments)]
    fn head_scores_backward(
        &mut self,
        plan: &Self::HeadPlan,
        dlaterals: Option<[Slot<Self::Act>; 4]>,
        dw: Slot<f32>,
        db: Slot<f32>,
        dscores: Slot<f32>,
        input: HeadInput<Self::Act>,
        classifier: Classifier,
    ) -> Result<()>;

    /// pred (n, out_h, out_w) = arg-max of the scores resampled bilinearly (align_corners = false)
    /// to out_h × out_w.
    ///
    /// pred (n/2, out_h, out_w): images i and n/2 + i are two views of one, whose scores are added
    /// first.
    fn head_predict(
        &mut self,
        plan: &Self::HeadPlan,
        pred: Slot<u16>,
        out: (usize, usize),
        input: HeadInput<Self::Act>,
        classifier: Classifier,
    ) -> Result<()>;
}
