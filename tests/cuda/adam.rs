use half::{bf16, f16};
use picie::device::ops::{Adam, AdamSpec, Memory, ParamBlocks};
use picie::device::{Activation, Layout, Pool, Slot};

use crate::util::{Rig, close, signed};

/// A few roundings of f32; the GPU fuses multiplications and additions.
const TOL: f32 = 5e-7;

/// What lies behind the parameters of a block, and must stay.
const BEHIND: [f32; 4] = [77.0; 4];

/// Weights, m and v after each of three steps.
fn steps<B: Adam>(dev: &mut B, len: usize, spec: AdamSpec) -> Vec<[Vec<f32>; 3]> {
    let mut layout = Layout::default();
    let long = dev.plan_params(&mut layout, len + BEHIND.len());
    let correction = layout.take(Pool::Staging, "correction", 2);
    dev.reserve(&layout).unwrap();
    for block in [long.weights, long.m, long.v] {
        dev.write(block, &[vec![0.0; len], BEHIND.to_vec()].concat()).unwrap();
    }
    let mut behind_compute = BEHIND;
    if long.compute.offset != long.weights.offset {
        behind_compute = [-5.0; 4];
        dev.write(long.compute, &vec![B::Act::round(-5.0); long.compute.len]).unwrap();
    }
    let part = |block: Slot<f32>| block.part(0, len);
    let blocks = ParamBlocks {
        weights: part(long.weights),
        grads: part(long.grads),
        m: part(long.m),
        v: part(long.v),
        compute: long.compute.part(0, len),
    };
    dev.write(blocks.weights, &signed(1, len)).unwrap();
    dev.sync_compute(blocks).unwrap();
    let widen =
        |compute: Vec<B::Act>| -> Vec<f32> { compute.into_iter().map(B::Act::widen).collect() };
    let rounded = |w: &[f32]| -> Vec<f32> { w.iter().map(|&w| B::Act::round(w).widen()).collect() };
    assert_eq!(widen(dev.read(blocks.compute).unwrap()), rounded(&signed(1, len)));

    let mut states = Vec::new();
    for step in 1..=3 {
        // Gradients of many sizes, some of them zero.
        let grads = signed(10 + step, len).into_iter().map(|g| g.powi(5) * f32::from(g > -1.0));
        dev.write(blocks.grads, &grads.collect::<Vec<_>>()).unwrap();
        dev.write(correction, &spec.correction(step, 1.0)).unwrap();
        dev.adam_step(blocks, spec, correction).unwrap();
        let state = [blocks.weights, blocks.m, blocks.v].map(|block| dev.read(block).unwrap());
        assert_eq!(
            widen(dev.read(blocks.compute).unwrap()),
            rounded(&state[0]),
            "compute is not the rounded weights"
        );
        states.push(state);
    }
    for block in [long.weights, long.m, long.v] {
        assert_eq!(dev.read(block).unwrap()[len..], BEHIND, "written behind {len} parameters");
    }
    assert_eq!(
        widen(dev.read(long.compute).unwrap())[len..],
        behind_compute,
        "written behind {len} parameters"
    );
    states
}

fn case<A: Activation>() {
    // Below, at and above a thread's four and a block's 1024; several blocks.
    for len in [1, 3, 4, 5, 1023, 1024, 1025, 5003] {
        let Some(mut rig) = Rig::cuda::<A>() else { return };
        for spec in [
            AdamSpec::new(3e-3),
            AdamSpec { beta1: 0.5, beta2: 0.9, eps: 1e-3, grad_scale: 0.25, lr: 0.1 },
        ] {
            let got = steps(&mut rig.dev, len, spec);
            let want = steps(&mut Rig::new().dev, len, spec);
            for (step, (got, want)) in got.iter().zip(&want).enumerate() {
                for (what, (got, want)) in ["weights", "m", "v"].iter().zip(got.iter().zip(want)) {
                    close(&format!("{what} of {len} after step {}", step + 1), got, want, TOL);
                }
            }
            // The updates alone: weights of size 1 hide errors of steps of size lr. Roundings of
            // weights over lr.
            let moved = |states: &[[Vec<f32>; 3]]| -> Vec<f32> {
                states[2][0].iter().zip(signed(1, len)).map(|(w, w0)| w - w0).collect()
            };
            close("updates", &moved(&got), &moved(&want), 1e-4);
        }
    }
}

#[test]
fn three_steps_in_f32() {
    case::<f32>();
}

#[test]
fn three_steps_in_bf16() {
    case::<bf16>();
}

#[test]
fn three_steps_in_f16() {
    case::<f16>();
}

#[test]
fn f32_keeps_no_copy_of_the_weights() {
    let (Some(mut single), Some(mut half)) = (Rig::cuda::<f32>(), Rig::cuda::<bf16>()) else {
        return;
    };
    let bytes = |layout: &Layout| layout.bytes(Pool::Params);
    let (mut four, mut five) = (Layout::default(), Layout::default());
    let blocks = single.dev.plan_params(&mut four, 160);
    half.dev.plan_params(&mut five, 160);
    assert_eq!(blocks.compute.offset, blocks.weights.offset);
    assert_eq!((bytes(&four), bytes(&five)), (16 * 160, 18 * 160));
}

#[test]
fn blocks_of_unlike_lengths_are_refused() {
    let Some(mut rig) = Rig::cuda::<bf16>() else { return };
    let mut layout = Layout::default();
    let blocks = rig.dev.plan_params(&mut layout, 64);
    let correction = layout.take(Pool::Staging, "correction", 2);
    rig.dev.reserve(&layout).unwrap();
    let mut short = blocks;
    short.m = blocks.m.part(0, 63);
    let spec = AdamSpec::new(0.1);
    let fails =
        |r: picie::base::Result<()>, what: &str| assert!(r.unwrap_err().to_string().contains(what));
    fails(rig.dev.adam_step(short, spec, correction), "m has 63");
    fails(rig.dev.adam_step(blocks, spec, correction.part(0, 1)), "correction has 1");
    short.compute = blocks.compute.part(0, 32);
    fails(rig.dev.sync_compute(short), "compute has 32");
}
