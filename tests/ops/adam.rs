use picie::device::cpu::Cpu;
use picie::device::ops::{Adam, AdamSpec, Memory, ParamBlocks};
use picie::device::{Layout, Pool, Slot};

use crate::util::{close, golden, signed};

/// Zeroed blocks of `len` parameters, and a slot for the correction.
fn ready(len: usize) -> (Cpu, ParamBlocks<f32>, Slot<f32>) {
    let (mut cpu, mut layout) = (Cpu::new(), Layout::default());
    let blocks = cpu.plan_params(&mut layout, len);
    let correction = layout.take(Pool::State, "correction", 2);
    cpu.reserve(&layout).unwrap();
    (cpu, blocks, correction)
}

/// Three steps on the golden's gradients times `loss_scale`, which the spec divides by.
fn three_steps(loss_scale: f32) {
    let g = golden("adam");
    let (mut cpu, blocks, correction) = ready(37);
    cpu.write(blocks.weights, &g["w0"]).unwrap();
    cpu.sync_compute(blocks).unwrap();
    let spec = AdamSpec { grad_scale: 1.0 / loss_scale, ..AdamSpec::new(3e-3) };
    for step in 1..=3 {
        let grads: Vec<f32> = g[&format!("g{step}")].iter().map(|g| g * loss_scale).collect();
        cpu.write(blocks.grads, &grads).unwrap();
        cpu.write(correction, &spec.correction(step, 1.0)).unwrap();
        cpu.adam_step(blocks, spec, correction).unwrap();
        // A few roundings of f32.
        close("weights", &cpu.read(blocks.weights).unwrap(), &g[&format!("w{step}")], 5e-7);
        assert_eq!(cpu.read(blocks.compute).unwrap(), cpu.read(blocks.weights).unwrap());
        // The updates alone, since weights of size 1 hide errors of steps of size lr: roundings of
        // weights over lr.
        let moved =
            |w: &[f32]| -> Vec<f32> { w.iter().zip(&g["w0"]).map(|(a, b)| a - b).collect() };
        close(
            "updates",
            &moved(&cpu.read(blocks.weights).unwrap()),
            &moved(&g[&format!("w{step}")]),
            1e-4,
        );
    }
    close("m", &cpu.read(blocks.m).unwrap(), &g["m"], 1e-6);
    close("v", &cpu.read(blocks.v).unwrap(), &g["v"], 1e-6);
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
fn a_block_longer_than_a_piece_is_stepped_everywhere() {
    let len = 2 * (1 << 15) + 3;
    let (mut cpu, blocks, correction) = ready(len);
    let spec = AdamSpec::new(0.5);
    cpu.write(blocks.grads, &signed(1, len)).unwrap();
    cpu.write(correction, &spec.correction(1, 1.0)).unwrap();
    cpu.adam_step(blocks, spec, correction).unwrap();
    let (w, g) = (cpu.read(blocks.weights).unwrap(), cpu.read(blocks.grads).unwrap());
    // The first step is lr against the sign; ε/|g| shortens it where a gradient is tiny.
    assert!(w.iter().zip(&g).all(|(w, g)| (w + 0.5 * g.signum()).abs() <= 1e-5 + 1e-8 / g.abs()));
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
fn a_correction_of_another_length_is_refused() {
    let (mut cpu, blocks, correction) = ready(5);
    let fails = cpu.adam_step(blocks, AdamSpec::new(0.1), correction.part(0, 1)).unwrap_err();
    assert!(fails.to_string().contains("correction has 1"), "{fails}");
}
