use half::{bf16, f16};
use picie::device::ops::{Adam, AdamSpec, Memory};
use picie::device::{Activation, Layout, Pool};

use crate::util::{Rig, close, signed};

/// A few roundings of f32; the GPU fuses multiplications and additions.
const TOL: f32 = 5e-7;

/// Weights, m and v after each of three steps, then the weights that convolutions read.
fn steps<B: Adam>(dev: &mut B, len: usize, spec: AdamSpec) -> (Vec<[Vec<f32>; 3]>, Vec<f32>) {
    let mut layout = Layout::default();
    let blocks = dev.plan_params(&mut layout, len);
    let correction = layout.take(Pool::Staging, "correction", 2);
    let guard = layout.take::<u8>(Pool::Params, "guard", 64);
    dev.reserve(&layout).unwrap();
    for block in [blocks.m, blocks.v] {
        dev.zero(block).unwrap();
    }
    dev.write(guard, &[0xA5; 64]).unwrap();
    dev.write(blocks.weights, &signed(1, len)).unwrap();
    dev.sync_compute(blocks).unwrap();
    let widen = |compute: Vec<B::Act>| -> Vec<f32> { compute.into_iter().map(B::Act::widen).collect() };
    let rounded = |w: &[f32]| -> Vec<f32> { w.iter().map(|&w| B::Act::round(w).widen()).collect() };
    assert_eq!(widen(dev.read(blocks.compute).unwrap()), rounded(&signed(1, len)));

    let mut states = Vec::new();
    for step in 1..=3 {
        // Gradients of many sizes, some of them zero.
        let grads = signed(10 + step, len).into_iter().map(|g| g.powi(5) * f32::from(g > -1.0));
        dev.write(blocks.grads, &grads.collect::<Vec<_>>()).unwrap();
        dev.write(correction, &spec.correction(step)).unwrap();
        dev.adam_step(blocks, spec, correction).unwrap();
        let state = [blocks.weights, blocks.m, blocks.v].map(|block| dev.read(block).unwrap());
        assert_eq!(widen(dev.read(blocks.compute).unwrap()), rounded(&state[0]), "compute is not the rounded weights");
        states.push(state);
    }
    assert_eq!(dev.read(guard).unwrap(), [0xA5; 64]);
    (states, widen(dev.read(blocks.compute).unwrap()))
}

fn case<A: Activation>() {
    // Below, at and above a thread's four and a block's 1024; several blocks.
    for len in [1, 3, 4, 5, 1023, 1024, 1025, 5003] {
        let Some(mut rig) = Rig::cuda::<A>() else { return };
        for spec in [AdamSpec::new(3e-3), AdamSpec { beta1: 0.5, beta2: 0.9, eps: 1e-3, grad_scale: 0.25, lr: 0.1 }] {
            let (got, _) = steps(&mut rig.dev, len, spec);
            let (want, _) = steps(&mut Rig::new().dev, len, spec);
            for (step, (got, want)) in got.iter().zip(&want).enumerate() {
                for (what, (got, want)) in ["weights", "m", "v"].iter().zip(got.iter().zip(want)) {
                    close(&format!("{what} of {len} after step {}", step + 1), got, want, TOL);
                }
            }
            // The updates alone: weights of size 1 hide errors of steps of size lr. Roundings of weights over lr.
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
    let (Some(mut single), Some(mut half)) = (Rig::cuda::<f32>(), Rig::cuda::<bf16>()) else { return };
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
    let fails = |r: picie::base::Result<()>, what: &str| assert!(r.unwrap_err().to_string().contains(what));
    fails(rig.dev.adam_step(short, spec, correction), "m has 63");
    fails(rig.dev.adam_step(blocks, spec, correction.part(0, 1)), "correction has 1");
    short.compute = blocks.compute.part(0, 32);
    fails(rig.dev.sync_compute(short), "compute has 32");
}
