//! Cross-entropy against the targets and its gradient down to the laterals, in one sweep over each
//! image.

use rayon::prelude::*;

use super::gradient::{by_image, sweep};
use super::scores::{Packed, Truth, cross_entropy, packed_len};
use super::{Images, Room, scratch_len};
use crate::base::Result;
use crate::device::Slot;
use crate::device::cpu::share::share;
use crate::device::cpu::{Cpu, check_index};
use crate::device::ops::{HeadInput, HeadSpec, LossInput};

/// What the images of a batch have against one target.
struct Answers<'a> {
    labels: &'a [u16],
    weights: &'a [f32],
    /// 1/Σ w[y] over the pixels of each view; 0 where the sum is.
    shares: Vec<f64>,
    scale: f32,
    /// Of the scores.
    column: usize,
}

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

pub fn head_loss(
    cpu: &mut Cpu,
    spec: &HeadSpec,
    losses: Slot<f32>,
    dlaterals: [Slot<f32>; 4],
    input: HeadInput<f32>,
    loss: LossInput,
) -> Result<()> {
    spec.check_loss(losses, dlaterals, &input, &loss)?;
    let (simd, d, targets) = (cpu.simd, spec.d, loss.targets);
    let firsts = cpu.pack(spec, targets.iter().map(|t| t.classifier));
    let stride = firsts[targets.len()];

    let scratch = cpu.scratch(scratch_len(spec));
    let ([p2, p3, p4, p5], [d2, d3, d4, d5]) = (input.laterals, dlaterals);
    let [y0, y1, y2, y3] = [0, 1, 2, 3].map(|c| targets.get(c).map(|t| t.labels));
    let [w0, w1, w2, w3] = [0, 1, 2, 3].map(|c| targets.get(c).map(|t| t.weights));
    let (
        scratch,
        losses,
        d2,
        d3,
        d4,
        d5,
        p2,
        p3,
        p4,
        p5,
        crops,
        index,
        y0,
        y1,
        y2,
        y3,
        w0,
        w1,
        w2,
        w3,
    ) = cpu.get((
        scratch,
        losses,
        d2,
        d3,
        d4,
        d5,
        p2,
        p3,
        p4,
        p5,
        input.crops,
        loss.index,
        y0,
        y1,
        y2,
        y3,
        w0,
        w1,
        w2,
        w3,
    ));
    let images = Images::new(spec, [p2, p3, p4, p5], crops.as_deref())?;
    let mut answers = Vec::new();
    let stored = [y0, y1, y2, y3].into_iter().flatten().zip([w0, w1, w2, w3].into_iter().flatten());
    for ((target, &column), (labels, weights)) in targets.iter().zip(&firsts).zip(stored) {
        check_index("head_loss", index, labels.len() / spec.pixels())?;
        let shares = shares(spec, loss.view, index, labels, weights);
        answers.push(Answers { labels, weights, shares, scale: target.scale, column });
    }

    let (packed, rest) = scratch.split_at_mut(packed_len(stride, d));
    let packed = Packed::again(packed, stride, d);
    let gradients = by_image(spec.n, [d2, d3, d4, d5]);
    share(
        losses.chunks_exact_mut(targets.len()).zip(gradients).enumerate(),
        rest,
        |(i, (losses, gradients)), mine| {
            let Room { features, merge, inverse, scores } = Room::new(spec, mine);
            let (row, view) = (index[i] as usize * spec.pixels(), i / loss.view);
            let mut sums = [0.0; 4];
            sweep(
                simd,
                spec,
                &images.get(i),
                gradients,
                (features, merge, inverse),
                |first, f, g| {
                    let rows = f.len() / d;
                    let scores = &mut scores[..rows * stride];
                    packed.scores(scores, f);
                    for (sum, answer) in sums.iter_mut().zip(&answers) {
                        let Answers { labels, weights, ref shares, scale, column } = *answer;
                        let labels = &labels[row + first..][..rows];
                        let truth = Truth { labels, weights, share: shares[view], scale };
                        *sum += cross_entropy(simd, scores, stride, column, &truth);
                    }
                    packed.backward(g, scores);
                },
            );
            for ((loss, sum), answer) in losses.iter_mut().zip(sums).zip(&answers) {
                *loss = (sum * answer.shares[view]) as f32;
            }
        },
    );
    Ok(())
}
