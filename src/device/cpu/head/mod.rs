//! The head on the CPU: one image is one piece of work, in scratch of the thread that has it.
//!
//! * [`resample`]: bilinear sampling and its adjoint; [`merge`]: the laterals to F by it.
//! * [`normalise`]: F to F̂; [`scores`]: what classifiers make of F̂; [`gradient`]: from that of F̂
//!   back to the laterals.
//! * [`loss`], [`learned`] and [`predict`]: the ops with more to them.
//!
//! Scratch: packed classifiers | one part an image, for what is put together in image order | one
//! [`Room`] a thread.

mod gradient;
mod learned;
mod loss;
mod merge;
mod normalise;
mod predict;
mod resample;
pub(super) mod scores;

use scores::{BLOCK, Packed, Sums, columns, each_argmax, packed_len};

use super::share::{share, workers};
use super::{Cpu, check_index};
use crate::base::{Error, Result};
use crate::device::Slot;
use crate::device::ops::head::MOST_TARGETS;
use crate::device::ops::{Classifier, Crop, Head, HeadInput, HeadSpec, LossInput, want};
use merge::Image;

/// What a thread works in.
struct Room<'a> {
    /// (h, w, d)
    features: &'a mut [f32],
    /// For [`merge::forward`].
    merge: &'a mut [f32],
    /// 1/‖F‖ of a block.
    inverse: &'a mut [f32],
    /// Of a block against all targets, or of a whole image and one row more against one.
    scores: &'a mut [f32],
}

impl<'a> Room<'a> {
    fn len(spec: &HeadSpec) -> usize {
        let scores = columns(spec.k) * (MOST_TARGETS * BLOCK).max(spec.pixels() + spec.w);
        spec.pixels() * spec.d + merge::room_len(spec) + BLOCK + scores
    }

    fn new(spec: &HeadSpec, scratch: &'a mut [f32]) -> Self {
        let (features, rest) = scratch.split_at_mut(spec.pixels() * spec.d);
        let (merge, rest) = rest.split_at_mut(merge::room_len(spec));
        let (inverse, scores) = rest.split_at_mut(BLOCK);
        Room { features, merge, inverse, scores }
    }
}

/// f32 of one image's part in the middle of the scratch: labels as u16; sums (k, d), counts (k) and
/// a score; or dw and db.
fn part_len(spec: &HeadSpec) -> usize {
    spec.pixels().div_ceil(2).max(spec.k * (spec.d + 1) + 1)
}

fn scratch_len(spec: &HeadSpec) -> usize {
    packed_len(MOST_TARGETS * columns(spec.k), spec.d)
        + spec.n * part_len(spec)
        + workers() * Room::len(spec)
}

/// Laterals and crops as an op reads them.
struct Images<'a> {
    spec: HeadSpec,
    laterals: [&'a [f32]; 4],
    crops: Option<&'a [Crop]>,
}

impl<'a> Images<'a> {
    fn new(spec: &HeadSpec, laterals: [&'a [f32]; 4], crops: Option<&'a [Crop]>) -> Result<Self> {
        let inside =
            |start: u32, side: u32, len: usize| start as usize + side as usize <= len && side > 0;
        for c in crops.unwrap_or_default() {
            if !inside(c.top, c.side, spec.h) || !inside(c.left, c.side, spec.w) {
                let what = format!("{c:?} is not inside of a map of {}×{}", spec.h, spec.w);
                return Err(Error::input(what, "draw crops for the size of the feature map"));
            }
        }
        Ok(Images { spec: *spec, laterals, crops })
    }

    fn get(&self, i: usize) -> Image<'a> {
        let whole = |c: &Crop| self.spec.h == self.spec.w && *c == Crop::whole(self.spec.h);
        let part = |p: &'a [f32]| &p[i * (p.len() / self.spec.n)..][..p.len() / self.spec.n];
        Image {
            laterals: self.laterals.map(part),
            crop: self.crops.map(|c| c[i]).filter(|c| !whole(c)),
        }
    }

    /// features (h, w, d) = F̂ of image i.
    fn features(
        &self,
        simd: pulp::Arch,
        i: usize,
        features: &mut [f32],
        merge: &mut [f32],
        inverse: &mut [f32],
    ) {
        merge::forward(simd, &self.spec, features, &self.get(i), merge);
        for block in features.chunks_mut(BLOCK * self.spec.d) {
            normalise::forward(simd, &self.spec, block, inverse);
        }
    }
}

impl Cpu {
    /// Packs classifiers side by side into the first elements of the scratch. Returns the first
    /// column of each, and of none more.
    fn pack(
        &mut self,
        spec: &HeadSpec,
        classifiers: impl Iterator<Item = Classifier> + Clone,
    ) -> Vec<usize> {
        let mut firsts = vec![0];
        firsts.extend(classifiers.clone().scan(0, |end, c| {
            *end += columns(c.k);
            Some(*end)
        }));
        let total = firsts[firsts.len() - 1];
        for (&first, c) in firsts.iter().zip(classifiers) {
            let scratch = self.scratch(scratch_len(spec));
            let (scratch, w, b) = self.get((scratch, c.w, c.b));
            Packed::put(scratch, (total, spec.d), first, w, b);
        }
        firsts
    }
}

impl Head for Cpu {
    type HeadPlan = HeadSpec;

    fn plan_head(&mut self, spec: HeadSpec) -> Result<HeadSpec> {
        spec.check()?;
        self.ask_scratch(scratch_len(&spec));
        Ok(spec)
    }

    fn head_features(
        &mut self,
        spec: &HeadSpec,
        features: Slot<f32>,
        input: HeadInput<f32>,
    ) -> Result<()> {
        const OP: &str = "head_features";
        spec.check_input(OP, &input)?;
        want(OP, "features", features, spec.lateral_len(0))?;
        let (simd, scratch, [p2, p3, p4, p5]) =
            (self.simd, self.scratch(scratch_len(spec)), input.laterals);
        let (scratch, features, p2, p3, p4, p5, crops) =
            self.get((scratch, features, p2, p3, p4, p5, input.crops));
        let images = Images::new(spec, [p2, p3, p4, p5], crops.as_deref())?;
        share(
            features.chunks_exact_mut(spec.pixels() * spec.d).enumerate(),
            scratch,
            |(i, features), mine| {
                let room = Room::new(spec, mine);
                images.features(simd, i, features, room.merge, room.inverse);
            },
        );
        Ok(())
    }

    fn head_assign(
        &mut self,
        spec: &HeadSpec,
        labels: Slot<u16>,
        counts: Slot<u32>,
        input: HeadInput<f32>,
        index: Slot<u32>,
        classifier: Classifier,
    ) -> Result<()> {
        const OP: &str = "head_assign";
        let k = classifier.k;
        spec.check_input(OP, &input)?;
        spec.check_classifier(OP, classifier)?;
        spec.check_labels(OP, labels, index)?;
        want(OP, "counts", counts, k)?;
        self.pack(spec, std::iter::once(classifier));
        let (simd, scratch, [p2, p3, p4, p5]) =
            (self.simd, self.scratch(scratch_len(spec)), input.laterals);
        let (scratch, labels, counts, p2, p3, p4, p5, crops, index) =
            self.get((scratch, labels, counts, p2, p3, p4, p5, input.crops, index));
        let images = Images::new(spec, [p2, p3, p4, p5], crops.as_deref())?;
        check_index(OP, index, labels.len() / spec.pixels())?;

        let (packed, rest) = scratch.split_at_mut(packed_len(columns(k), spec.d));
        let packed = Packed::again(packed, columns(k), spec.d);
        let (parts, rest) = rest.split_at_mut(spec.n * part_len(spec));
        share(parts.chunks_exact_mut(part_len(spec)).enumerate(), rest, |(i, part), mine| {
            let room = Room::new(spec, mine);
            images.features(simd, i, room.features, room.merge, room.inverse);
            let part: &mut [u16] = bytemuck::cast_slice_mut(part);
            for (block, part) in room.features.chunks(BLOCK * spec.d).zip(part.chunks_mut(BLOCK)) {
                let scores = &mut room.scores[..block.len() / spec.d * packed.columns()];
                packed.scores(scores, block);
                each_argmax(simd, scores, k, |p, a, _| part[p] = a as u16);
            }
        });
        for (part, &image) in parts.chunks_exact(part_len(spec)).zip(&*index) {
            let part = &bytemuck::cast_slice::<f32, u16>(part)[..spec.pixels()];
            labels[image as usize * spec.pixels()..][..spec.pixels()].copy_from_slice(part);
            for &label in part {
                counts[usize::from(label)] += 1;
            }
        }
        Ok(())
    }

    fn head_accumulate(
        &mut self,
        spec: &HeadSpec,
        sums: Slot<f32>,
        counts: Slot<u32>,
        score: Slot<f32>,
        input: HeadInput<f32>,
        classifier: Classifier,
    ) -> Result<()> {
        const OP: &str = "head_accumulate";
        let (k, d) = (classifier.k, spec.d);
        spec.check_input(OP, &input)?;
        spec.check_classifier(OP, classifier)?;
        want(OP, "sums", sums, k * d)?;
        want(OP, "counts", counts, k)?;
        want(OP, "score", score, 1)?;
        self.pack(spec, std::iter::once(classifier));
        let (simd, scratch, [p2, p3, p4, p5]) =
            (self.simd, self.scratch(scratch_len(spec)), input.laterals);
        let (scratch, sums, counts, score, p2, p3, p4, p5, crops) =
            self.get((scratch, sums, counts, score, p2, p3, p4, p5, input.crops));
        let images = Images::new(spec, [p2, p3, p4, p5], crops.as_deref())?;

        let (packed, rest) = scratch.split_at_mut(packed_len(columns(k), d));
        let packed = Packed::again(packed, columns(k), d);
        let (parts, rest) = rest.split_at_mut(spec.n * part_len(spec));
        share(parts.chunks_exact_mut(part_len(spec)).enumerate(), rest, |(i, part), mine| {
            let room = Room::new(spec, mine);
            images.features(simd, i, room.features, room.merge, room.inverse);
            part.fill(0.0);
            let (sums, part) = part.split_at_mut(k * d);
            let (counts, score) = part.split_at_mut(k);
            let mut all = Sums { sums, counts: bytemuck::cast_slice_mut(counts), score: 0.0 };
            all.add(simd, room.features, packed, room.scores);
            score[0] = all.score as f32;
        });
        let mut total = Sums { sums, counts, score: 0.0 };
        for part in parts.chunks_exact(part_len(spec)) {
            let (sums, part) = part.split_at(k * d);
            total.add_part(sums, bytemuck::cast_slice(&part[..k]), part[k].into());
        }
        score[0] += total.score as f32;
        Ok(())
    }

    fn head_loss(
        &mut self,
        spec: &HeadSpec,
        losses: Slot<f32>,
        dlaterals: [Slot<f32>; 4],
        input: HeadInput<f32>,
        loss: LossInput<'_>,
    ) -> Result<()> {
        loss::head_loss(self, spec, losses, dlaterals, input, loss)
    }

    fn head_scores(
        &mut self,
        spec: &HeadSpec,
        scores: Slot<f32>,
        input: HeadInput<f32>,
        classifier: Classifier,
    ) -> Result<()> {
        learned::head_scores(self, spec, scores, input, classifier)
    }

    fn head_scores_backward(
        &mut self,
        spec: &HeadSpec,
        dlaterals: Option<[Slot<f32>; 4]>,
        dw: Slot<f32>,
        db: Slot<f32>,
        dscores: Slot<f32>,
        input: HeadInput<f32>,
        classifier: Classifier,
    ) -> Result<()> {
        learned::head_scores_backward(self, spec, dlaterals, (dw, db), dscores, input, classifier)
    }

    fn head_predict(
        &mut self,
        spec: &HeadSpec,
        pred: Slot<u16>,
        out: (usize, usize),
        input: HeadInput<f32>,
        classifier: Classifier,
    ) -> Result<()> {
        predict::head_predict(self, spec, pred, out, input, classifier)
    }
}
