//! The head on the CPU: an image is one piece of work, in the scratch of the thread that has it.
//!
//! * [`resample`]: bilinear sampling and its adjoint; [`merge`]: the laterals to F by it.
//! * [`normalise`]: F to F̂; [`scores`]: what classifiers make of F̂; [`gradient`]: from the gradient
//!   of F̂ back to the laterals.
//! * [`loss`], [`learned`] and [`predict`]: the ops with more to them.
//!
//! Scratch holds the packed classifiers, then a part for each image, whose results are put together
//! in the order of the images, then a [`Room`] for each thread.

mod gradient;
mod learned;
mod loss;
mod merge;
mod normalise;
mod predict;
mod resample;
pub(super) mod scores;

use pulp::Arch;

use super::share::{share, workers};
use super::slices::{Lines, Slots};
use super::{Cpu, check_index};
use crate::base::{Error, Result};
use crate::device::Slot;
use crate::device::ops::head::{HeadOps, MOST_TARGETS};
use crate::device::ops::{
    Classifier, Crop, HeadAccumulate, HeadAssign, HeadFeatures, HeadInput, HeadLoss, HeadPredict,
    HeadScores, HeadScoresBackward, HeadSpec, Op, Passed,
};
use merge::Image;
use scores::{BLOCK, ClusterSums, Packed, columns, each_argmax, packed_len};

/// What a thread works in while it has an image.
struct Room<'a> {
    /// F, later F̂ (h, w, d).
    features: &'a mut [f32],
    /// Scratch for [`merge::forward`].
    merge: &'a mut [f32],
    /// 1/‖F‖ of the pixels of a block.
    inverse: &'a mut [f32],
}

impl<'a> Room<'a> {
    /// f32 of scratch that a thread needs.
    fn len(spec: &HeadSpec) -> usize {
        let scores = columns(spec.k) * (MOST_TARGETS * BLOCK).max(spec.pixels() + spec.w);
        spec.pixels() * spec.d + merge::room_len(spec) + BLOCK + scores
    }

    /// The room in a thread's scratch, and scratch for scores behind it: enough for those of a
    /// block against all targets (loss), and of a whole image and one row more against one
    /// classifier (predict).
    fn new(spec: &HeadSpec, scratch: &'a mut [f32]) -> (Self, &'a mut [f32]) {
        let (features, rest) = scratch.split_at_mut(spec.pixels() * spec.d);
        let (merge, rest) = rest.split_at_mut(merge::room_len(spec));
        let (inverse, scores) = rest.split_at_mut(BLOCK);
        (Room { features, merge, inverse }, scores)
    }
}

/// f32 of one image's part in the middle of the scratch, which holds labels as u16; or sums (k, d),
/// counts (k) and a score; or dw and db.
fn part_len(spec: &HeadSpec) -> usize {
    spec.pixels().div_ceil(2).max(spec.k * (spec.d + 1) + 1)
}

/// f32 of scratch that any op of the family needs.
fn scratch_len(spec: &HeadSpec) -> usize {
    packed_len(MOST_TARGETS * columns(spec.k), spec.d)
        + spec.n * part_len(spec)
        + workers() * Room::len(spec)
}

/// The laterals and the crops.
impl Slots for HeadInput {
    type Slices<'a> = ([&'a mut [f32]; 4], Option<&'a mut [Crop]>);

    fn list(&self, all: &mut Vec<Slot<u8>>) {
        (self.laterals, self.crops).list(all);
    }

    fn slices<'a>(&self, lines: Lines<'_, 'a>) -> Self::Slices<'a> {
        (self.laterals, self.crops).slices(lines)
    }
}

/// Laterals and crops of a batch as an op reads them.
struct Images<'a> {
    simd: Arch,
    spec: &'a HeadSpec,
    laterals: [&'a [f32]; 4],
    crops: Option<&'a [Crop]>,
}

impl<'a> Images<'a> {
    /// Refuses crops that reach out of their map. Doors cannot see it: crops are not arguments,
    /// they lie in the engine's memory.
    fn new(
        simd: Arch,
        spec: &'a HeadSpec,
        (laterals, crops): <HeadInput as Slots>::Slices<'a>,
    ) -> Result<Self> {
        let (laterals, crops) = (laterals.map(|p| &*p), crops.map(|crops| &*crops));
        let inside =
            |start: u32, side: u32, len: usize| start as usize + side as usize <= len && side > 0;
        for c in crops.unwrap_or_default() {
            if !inside(c.top, c.side, spec.h) || !inside(c.left, c.side, spec.w) {
                let what = format!("{c:?} is not inside of a map of {}×{}", spec.h, spec.w);
                return Err(Error::input(what, "draw crops for the size of the feature map"));
            }
        }
        Ok(Images { simd, spec, laterals, crops })
    }

    /// Image `i` of the batch. A crop that is the whole of the map is none.
    fn get(&self, i: usize) -> Image<'a> {
        let whole = |c: &Crop| self.spec.h == self.spec.w && *c == Crop::whole(self.spec.h);
        let part = |p: &'a [f32]| &p[i * (p.len() / self.spec.n)..][..p.len() / self.spec.n];
        Image {
            laterals: self.laterals.map(part),
            crop: self.crops.map(|c| c[i]).filter(|c| !whole(c)),
        }
    }

    /// The room's features (h, w, d) = F̂ of image `i`.
    fn features(&self, i: usize, room: &mut Room) {
        merge::forward(self.simd, self.spec, room.features, &self.get(i), room.merge);
        for block in room.features.chunks_mut(BLOCK * self.spec.d) {
            normalise::forward(self.simd, self.spec, block, room.inverse);
        }
    }
}

impl Cpu {
    /// Packs classifiers side by side into the first elements of the scratch. Returns the first
    /// column of each, and the number of columns of all.
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

impl HeadOps for Cpu {
    fn plan_head(&mut self, spec: HeadSpec) -> Result<usize> {
        self.ask_scratch(scratch_len(&spec));
        Ok(0)
    }

    fn head_features(&mut self, a: Passed<HeadFeatures>) -> Result<()> {
        let (simd, spec) = (self.simd, a.spec());
        let scratch = self.scratch(scratch_len(spec));
        let (scratch, features, input) = self.get((scratch, a.features, a.input));
        let images = Images::new(simd, spec, input)?;
        let features = features.chunks_exact_mut(spec.pixels() * spec.d).enumerate();
        share(features, scratch, |(i, features), mine| {
            let (room, _) = Room::new(spec, mine);
            images.features(i, &mut Room { features, ..room });
        });
        Ok(())
    }

    fn head_assign(&mut self, a: Passed<HeadAssign>) -> Result<()> {
        let (simd, spec, k) = (self.simd, a.spec(), a.classifier.k);
        self.pack(spec, std::iter::once(a.classifier));
        let scratch = self.scratch(scratch_len(spec));
        let (scratch, labels, counts, input, index) =
            self.get((scratch, a.labels, a.counts, a.input, a.index));
        let images = Images::new(simd, spec, input)?;
        check_index(HeadAssign::NAME, index, spec.images(a.labels))?;

        let (packed, rest) = scratch.split_at_mut(packed_len(columns(k), spec.d));
        let packed = Packed::again(packed, columns(k), spec.d);
        let (parts, rest) = rest.split_at_mut(spec.n * part_len(spec));
        share(parts.chunks_exact_mut(part_len(spec)).enumerate(), rest, |(i, part), mine| {
            let (mut room, scores) = Room::new(spec, mine);
            images.features(i, &mut room);
            let part: &mut [u16] = bytemuck::cast_slice_mut(part);
            for (block, part) in room.features.chunks(BLOCK * spec.d).zip(part.chunks_mut(BLOCK)) {
                let scores = &mut scores[..block.len() / spec.d * packed.columns()];
                packed.scores(scores, block);
                each_argmax(simd, scores, k, |p, label, _| part[p] = label as u16);
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

    fn head_accumulate(&mut self, a: Passed<HeadAccumulate>) -> Result<()> {
        let (simd, spec) = (self.simd, a.spec());
        let (k, d) = (a.classifier.k, spec.d);
        self.pack(spec, std::iter::once(a.classifier));
        let scratch = self.scratch(scratch_len(spec));
        let (scratch, sums, counts, score, input) =
            self.get((scratch, a.sums, a.counts, a.score, a.input));
        let images = Images::new(simd, spec, input)?;

        let (packed, rest) = scratch.split_at_mut(packed_len(columns(k), d));
        let packed = Packed::again(packed, columns(k), d);
        let (parts, rest) = rest.split_at_mut(spec.n * part_len(spec));
        share(parts.chunks_exact_mut(part_len(spec)).enumerate(), rest, |(i, part), mine| {
            let (mut room, scores) = Room::new(spec, mine);
            images.features(i, &mut room);
            part.fill(0.0);
            let (sums, part) = part.split_at_mut(k * d);
            let (counts, score) = part.split_at_mut(k);
            let counts = bytemuck::cast_slice_mut(counts);
            let mut all = ClusterSums { sums, counts, score: 0.0 };
            all.add(simd, room.features, packed, scores);
            score[0] = all.score as f32;
        });
        let mut total = ClusterSums { sums, counts, score: 0.0 };
        for part in parts.chunks_exact(part_len(spec)) {
            let (sums, part) = part.split_at(k * d);
            total.add_part(sums, bytemuck::cast_slice(&part[..k]), part[k].into());
        }
        score[0] += total.score as f32;
        Ok(())
    }

    fn head_loss(&mut self, a: Passed<HeadLoss>) -> Result<()> {
        loss::head_loss(self, a)
    }

    fn head_scores(&mut self, a: Passed<HeadScores>) -> Result<()> {
        learned::head_scores(self, a)
    }

    fn head_scores_backward(&mut self, a: Passed<HeadScoresBackward>) -> Result<()> {
        learned::head_scores_backward(self, a)
    }

    fn head_predict(&mut self, a: Passed<HeadPredict>) -> Result<()> {
        predict::head_predict(self, a)
    }
}
