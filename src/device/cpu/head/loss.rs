//! Cross-entropy against two classifiers and its gradient down to the laterals, in one sweep over each image.

use rayon::prelude::*;

use super::merge;
use super::normalise;
use super::scores::{BLOCK, Packed, Target, columns, cross_entropy, packed_len};
use super::{Images, Room, scratch_len};
use crate::base::Result;
use crate::device::Slot;
use crate::device::cpu::share::share;
use crate::device::cpu::{Cpu, check_index};
use crate::device::ops::{HeadInput, HeadSpec, LossInput};

/// 1/Σ w[y] over the pixels of each view, by classifier; 0 where the sum is.
fn shares(spec: &HeadSpec, view: usize, index: &[u32], labels: [&[u16]; 2], weights: [&[f32]; 2]) -> Vec<[f64; 2]> {
    let sum = |image: u32, c: usize| {
        let labels = &labels[c][image as usize * spec.pixels()..][..spec.pixels()];
        labels.iter().map(|&y| f64::from(weights[c][usize::from(y)])).sum::<f64>()
    };
    let images: Vec<[f64; 2]> = index.par_iter().map(|&i| [sum(i, 0), sum(i, 1)]).collect();
    let total = |view: &[[f64; 2]], c: usize| view.iter().map(|s| s[c]).sum::<f64>();
    let share = |total: f64| if total == 0.0 { 0.0 } else { 1.0 / total };
    images.chunks(view).map(|v| [share(total(v, 0)), share(total(v, 1))]).collect()
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
    let (simd, d, [c0, c1]) = (cpu.simd, spec.d, loss.classifiers);
    let scratch = cpu.scratch(scratch_len(spec));
    let (packed, w0, b0, w1, b1) = cpu.get((scratch, c0.w, c0.b, c1.w, c1.b));
    Packed::new(packed, d, &[(w0, b0), (w1, b1)]);

    let ([p2, p3, p4, p5], [d2, d3, d4, d5]) = (input.laterals, dlaterals);
    let ([y0, y1], [cw0, cw1]) = (loss.labels, loss.weights);
    let (scratch, losses, d2, d3, d4, d5, p2, p3, p4, p5, crops, y0, y1, index, cw0, cw1) =
        cpu.get((scratch, losses, d2, d3, d4, d5, p2, p3, p4, p5, input.crops, y0, y1, loss.index, cw0, cw1));
    let images = Images::new(spec, [p2, p3, p4, p5], crops.as_deref())?;
    let (labels, weights): ([&[u16]; 2], [&[f32]; 2]) = ([y0, y1], [cw0, cw1]);
    for labels in labels {
        check_index("head_loss", index, labels.len() / spec.pixels())?;
    }
    let shares = shares(spec, loss.view, index, labels, weights);

    let firsts = [0, columns(c0.k)];
    let stride = columns(c0.k) + columns(c1.k);
    let (packed, rest) = scratch.split_at_mut(packed_len(stride, d));
    let packed = Packed::again(packed, stride, d);
    let part = |level| spec.lateral_len(level) / spec.n;
    let gradients = d2
        .chunks_exact_mut(part(0))
        .zip(d3.chunks_exact_mut(part(1)))
        .zip(d4.chunks_exact_mut(part(2)).zip(d5.chunks_exact_mut(part(3))));
    share(losses.chunks_exact_mut(2).zip(gradients).enumerate(), rest, |(i, (losses, ((d2, d3), (d4, d5)))), mine| {
        let Room { features, merge, inverse, scores } = Room::new(spec, mine);
        let image = images.get(i);
        merge::forward(simd, spec, features, &image, merge);
        let crop = image.crop;
        // Without a warp the gradient of F is that of p2; with one, the merge's room is free again to hold it.
        let gradient = if crop.is_some() { &mut merge[..features.len()] } else { &mut *d2 };
        let row = index[i] as usize * spec.pixels();
        let mut sums = [0.0; 2];
        for (b, (f, g)) in features.chunks_mut(BLOCK * d).zip(gradient.chunks_mut(BLOCK * d)).enumerate() {
            let rows = f.len() / d;
            let (inverse, scores) = (&mut inverse[..rows], &mut scores[..rows * stride]);
            normalise::forward(simd, f, inverse, d);
            packed.scores(scores, f);
            for c in 0..2 {
                let target = Target {
                    labels: &labels[c][row + b * BLOCK..][..rows],
                    weights: weights[c],
                    share: shares[i / loss.view][c],
                    scale: loss.scale,
                };
                sums[c] += cross_entropy(simd, scores, stride, firsts[c], &target);
            }
            packed.backward(g, scores);
            normalise::backward(simd, g, f, inverse, d);
        }
        for c in 0..2 {
            losses[c] = (sums[c] * shares[i / loss.view][c]) as f32;
        }
        let warped = crop.map(|crop| (crop, &merge[..features.len()]));
        merge::backward(simd, spec, [d2, d3, d4, d5], warped);
    });
    Ok(())
}
