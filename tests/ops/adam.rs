//! Adam: PyTorch's steps, CUDA against the CPU, the rounded copy of the weights.

use picie::device::ops::{AdamSpec, AdamStep, AdamSync, ParamBlocks, adam_step, adam_sync};
use picie::device::{Dtype, Layout, Pool, Slot};

use crate::util::{OpCase, Results, Rig, close, equal, golden, signed};

/// A few roundings of f32; the GPU fuses multiplications and additions.
const TOL: f32 = 5e-7;

/// Steps on one block, from moments of zero.
struct Given {
    spec: AdamSpec,
    weights: Vec<f32>,
    /// Of each step.
    grads: Vec<Vec<f32>>,
}

impl Given {
    /// Gradients of many sizes, some of them zero.
    fn random(len: usize, spec: AdamSpec) -> Self {
        let grads = |step: u64| {
            let draws = signed(10 + step, len).into_iter();
            draws.map(|g| g.powi(5) * f32::from(g > -1.0)).collect()
        };
        Given { spec, weights: signed(1, len), grads: [1, 2, 3].map(grads).to_vec() }
    }

    /// Weights, and the copy that convolutions read; with f32 those read the weights themselves.
    fn blocks(&self, rig: &mut Rig, copy: bool) -> ParamBlocks {
        let (weights, none) = (rig.inout("weights", &self.weights), Slot::empty());
        let compute =
            if copy { rig.act_output("compute", self.weights.len()) } else { weights.as_acts() };
        ParamBlocks { weights, grads: none, m: none, v: none, compute }
    }

    /// Each of the steps.
    fn steps(&self, rig: &mut Rig, copy: bool) -> Vec<AdamStep> {
        let (blocks, spec) = (self.blocks(rig, copy), self.spec);
        let [m, v] = ["m", "v"].map(|name| rig.inout(name, &vec![0.0f32; self.weights.len()]));
        let step = |(i, grads): (usize, &Vec<f32>)| {
            let grads = rig.input(&format!("grads#{i}"), grads);
            let correction = spec.correction(i as u64 + 1, 1.0);
            let correction = rig.input(&format!("correction#{i}"), &correction);
            AdamStep { blocks: ParamBlocks { grads, m, v, ..blocks }, spec, correction }
        };
        self.grads.iter().enumerate().map(step).collect()
    }

    /// What each of the steps leaves of weights, m and v.
    fn case(&self) -> OpCase<'_> {
        let len = self.weights.len();
        OpCase::new(format!("adam_step of {len} parameters"), move |rig| {
            let steps = self.steps(rig, rig.dev.dtype() != Dtype::F32);
            let mut keep = |i: usize| {
                ["weights", "m", "v"].map(|n| rig.output(&format!("{n} after {i}"), len))
            };
            let kept: Vec<[Slot<f32>; 3]> = (0..steps.len()).map(&mut keep).collect();
            move |dev| {
                steps.iter().zip(&kept).try_for_each(|(&step, kept)| {
                    adam_step(dev, step)?;
                    let ParamBlocks { weights, m, v, .. } = step.blocks;
                    let copies = kept.iter().zip([weights, m, v]);
                    copies.into_iter().try_for_each(|(&kept, state)| dev.copy(kept, state))
                })
            }
        })
    }

    fn sync(&self, copy: bool) -> OpCase<'_> {
        OpCase::new(format!("adam_sync of {} parameters", self.weights.len()), move |rig| {
            let blocks = self.blocks(rig, copy);
            move |dev| adam_sync(dev, AdamSync { blocks })
        })
    }

    /// Where steps moved the weights: weights of size 1 hide errors of steps of size lr.
    fn updates(&self, weights: &[f32]) -> Vec<f32> {
        weights.iter().zip(&self.weights).map(|(w, w0)| w - w0).collect()
    }
}

/// Takes the copy that convolutions read out, which must be the rounded weights.
#[track_caller]
fn rounded(got: &mut Results, dtype: Dtype) {
    if dtype != Dtype::F32 {
        let compute: Vec<f32> = got["weights"].iter().map(|&w| dtype.round(w)).collect();
        equal("compute", &got["compute"], &compute);
        got.take("compute");
    }
}

/// Three steps on the golden's gradients times `loss_scale`, which the spec divides by.
fn three_steps(loss_scale: f32) {
    let g = golden("adam");
    let scaled = |step| g[&format!("g{step}")].iter().map(|g| g * loss_scale).collect();
    let given = Given {
        spec: AdamSpec { grad_scale: 1.0 / loss_scale, ..AdamSpec::new(3e-3) },
        weights: g["w0"].clone(),
        grads: [1, 2, 3].map(scaled).to_vec(),
    };
    let got = given.case().cpu();
    for step in 1..=3 {
        let (got, want) = (&got[&*format!("weights after {}", step - 1)], &g[&format!("w{step}")]);
        close("weights", got, want, TOL);
        // Roundings of weights over lr.
        close("updates", &given.updates(got), &given.updates(want), 1e-4);
    }
    close("m", &got["m"], &g["m"], 1e-6);
    close("v", &got["v"], &g["v"], 1e-6);
}

#[test]
fn three_steps_are_torchs() {
    three_steps(1.0);
}

#[test]
fn gradients_of_a_scaled_loss_are_scaled_back() {
    three_steps(1024.0);
}

#[test]
fn three_steps_are_the_cpus_and_convolutions_read_the_rounded_weights() {
    let other = AdamSpec { beta1: 0.5, beta2: 0.9, eps: 1e-3, grad_scale: 0.25, lr: 0.1 };
    // Below, at and above a thread's four and a block's 1024; several blocks.
    for len in [1, 3, 4, 5, 1023, 1024, 1025, 5003] {
        for (spec, dtype) in [AdamSpec::new(3e-3), other]
            .into_iter()
            .flat_map(|spec| Dtype::ALL.map(|dtype| (spec, dtype)))
        {
            let given = Given::random(len, spec);
            let Some([mut got, _]) = given.sync(dtype != Dtype::F32).both(dtype) else { return };
            rounded(&mut got, dtype);
            equal("synchronised weights", &got["weights"], &given.weights);
            let Some([mut got, want]) = given.case().both(dtype) else { return };
            rounded(&mut got, dtype);
            got.close(&want, |_| TOL);
            let [got, want] = [&got, &want].map(|of| given.updates(&of["weights"]));
            // Roundings of weights over lr.
            close("updates", &got, &want, 1e-4);
        }
    }
}

#[test]
fn a_block_longer_than_a_piece_is_stepped_everywhere() {
    let len = 2 * (1 << 15) + 3;
    let given =
        Given { spec: AdamSpec::new(0.5), weights: vec![0.0; len], grads: vec![signed(1, len)] };
    let got = given.case().cpu();
    // The first step is lr against the sign; ε/|g| shortens it where a gradient is tiny.
    let mut steps = got["weights"].iter().zip(&given.grads[0]);
    assert!(steps.all(|(w, g)| (w + 0.5 * g.signum()).abs() <= 1e-5 + 1e-8 / g.abs()));
}

#[test]
fn the_correction_is_taken_in_f64_and_fades() {
    let spec = AdamSpec::new(1e-3);
    // 1 − 0.999 in f32 would be 0.00100004673.
    assert_eq!(spec.correction(1, 1.0), [0.1, 0.001]);
    assert_eq!(spec.correction(2, 1.0), [0.19, 0.001999]);
    // A quarter of the learning rate: m̂ is divided by four times as much.
    assert_eq!(spec.correction(2, 0.25), [0.76, 0.001999]);
    assert_eq!(spec.correction(100_000, 1.0), [1.0; 2]);
}

#[test]
fn f32_keeps_no_copy_of_the_weights() {
    let bytes = |dtype| {
        let mut layout = Layout::new(dtype);
        let blocks = ParamBlocks::plan(&mut layout, 160);
        (blocks.compute.offset == blocks.weights.offset, layout.bytes(Pool::Params))
    };
    assert_eq!(Dtype::ALL.map(bytes), [(true, 16 * 160), (false, 18 * 160), (false, 18 * 160)]);
}

#[test]
fn blocks_of_unlike_lengths_are_refused() {
    let mut given = Given::random(64, AdamSpec::new(0.1));
    given.grads.truncate(1);
    given.sync(true).refuses_other_sizes("adam_sync", &[("weights", "compute")]);
    let step = OpCase::new("a step".into(), |rig| {
        let step = given.steps(rig, true)[0];
        move |dev| adam_step(dev, step)
    });
    step.refuses_other_sizes("adam_step", &[("weights", "grads")]);
}
