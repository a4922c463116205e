//! Cross-entropy against the targets and its gradient down to the laterals, in one sweep over each
//! image.

use rayon::prelude::*;

use super::gradient::by_image;
use super::scores::{Packed, Truth, cross_entropy, packed_len};
use super::{Images, Room, scratch_len};
use crate::base::Result;
use crate::device::cpu::share::share;
use crate::device::cpu::{Cpu, check_index};
use crate::device::ops::head::MOST_TARGETS;
use crate::device::ops::{HeadLoss, HeadSpec, Op, Passed};

/// One target as the images of a batch see it.
struct Answers<'a> {
    /// All label maps of the store.
    labels: &'a [u16],
    /// Class weights (k).
    weights: &'a [f32],
    /// 1/Σ w[y] over the pixels of each view; 0 where that sum is 0.
    shares: Vec<f64>,
    scale: f32,
    /// The first of the target's columns of scores.
    column: usize,
}

/// 1/Σ w[y] over the pixels of each view of `view` images; 0 where that sum is 0.
fn shares(
    spec: &HeadSpec,
    view: usize,
    index: &[u32],
    labels: &[u16],
    weights: &[f32],
) -> Vec<f64> {
    let sum = |&image: &u32| {
        let labels = &labels[image as usize * spec.pixels()..][..spec.pixels()];
        labels.iter().map(|&y| f64::from(weights[usize::from(y)])).sum::<f64>()
    };
    let images: Vec<f64> = index.par_iter().map(sum).collect();
    let share = |total: f64| if total == 0.0 { 0.0 } else { 1.0 / total };
    images.chunks(view).map(|view| share(view.iter().sum())).collect()
}

pub fn head_loss(cpu: &mut Cpu, a: Passed<HeadLoss>) -> Result<()> {
    let (simd, spec, targets) = (cpu.simd, a.spec(), a.targets);
    let firsts = cpu.pack(spec, targets.iter().map(|t| t.classifier));
    let stride = firsts[targets.len()];

    let scratch = cpu.scratch(scratch_len(spec));
    let stored = Vec::from_iter(targets.iter().map(|target| (target.labels, target.weights)));
    let (scratch, losses, dlaterals, input, index, stored) =
        cpu.get((scratch, a.losses, a.dlaterals, a.input, a.index, stored));
    let images = Images::new(simd, spec, input)?;
    check_index(HeadLoss::NAME, index, a.images(spec))?;
    let mut answers = Vec::new();
    for ((target, &column), (labels, weights)) in targets.iter().zip(&firsts).zip(stored) {
        let shares = shares(spec, a.view, index, labels, weights);
        answers.push(Answers { labels, weights, shares, scale: target.scale, column });
    }

    let (packed, rest) = scratch.split_at_mut(packed_len(stride, spec.d));
    let packed = Packed::again(packed, stride, spec.d);
    let gradients = by_image(spec.n, dlaterals);
    share(
        losses.chunks_exact_mut(targets.len()).zip(gradients).enumerate(),
        rest,
        |(i, (losses, gradients)), mine| {
            let (mut room, scores) = Room::new(spec, mine);
            let (row, view) = (index[i] as usize * spec.pixels(), i / a.view);
            let mut sums = [0.0; MOST_TARGETS];
            images.sweep(i, gradients, &mut room, |first, f, g| {
                let rows = f.len() / spec.d;
                let scores = &mut scores[..rows * stride];
                packed.scores(scores, f);
                for (sum, answer) in sums.iter_mut().zip(&answers) {
                    let Answers { labels, weights, ref shares, scale, column } = *answer;
                    let labels = &labels[row + first..][..rows];
                    let truth = Truth { labels, weights, share: shares[view], scale };
                    *sum += cross_entropy(simd, scores, stride, column, &truth);
                }
                packed.backward(g, scores);
            });
            for ((loss, sum), answer) in losses.iter_mut().zip(sums).zip(&answers) {
                *loss = (sum * answer.shares[view]) as f32;
            }
        },
    );
    Ok(())
}
