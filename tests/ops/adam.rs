use picie::device::Layout;
use picie::device::cpu::Cpu;
use picie::device::ops::{Adam, AdamSpec, Memory};

use crate::util::{close, golden, signed};

#[test]
fn three_steps_are_torchs() {
    let g = golden("adam");
    let (mut cpu, mut layout) = (Cpu::new(), Layout::default());
    let blocks = cpu.plan_params(&mut layout, 37);
    cpu.reserve(&layout).unwrap();
    cpu.write(blocks.weights, &g["w0"]).unwrap();
    cpu.sync_compute(blocks).unwrap();
    for step in 1..=3 {
        cpu.write(blocks.grads, &g[&format!("g{step}")]).unwrap();
        cpu.adam_step(blocks, AdamSpec::new(3e-3), step).unwrap();
        // A few roundings of f32.
        close("weights", &cpu.read(blocks.weights).unwrap(), &g[&format!("w{step}")], 5e-7);
        assert_eq!(cpu.read(blocks.compute).unwrap(), cpu.read(blocks.weights).unwrap());
        // The updates alone, since weights of size 1 hide errors of steps of size lr: roundings of weights over lr.
        let moved = |w: &[f32]| -> Vec<f32> { w.iter().zip(&g["w0"]).map(|(a, b)| a - b).collect() };
        close("updates", &moved(&cpu.read(blocks.weights).unwrap()), &moved(&g[&format!("w{step}")]), 1e-4);
    }
    close("m", &cpu.read(blocks.m).unwrap(), &g["m"], 1e-6);
    close("v", &cpu.read(blocks.v).unwrap(), &g["v"], 1e-6);
}

#[test]
fn a_block_longer_than_a_piece_is_stepped_everywhere() {
    let len = 2 * (1 << 15) + 3;
    let (mut cpu, mut layout) = (Cpu::new(), Layout::default());
    let blocks = cpu.plan_params(&mut layout, len);
    cpu.reserve(&layout).unwrap();
    cpu.write(blocks.grads, &signed(1, len)).unwrap();
    cpu.adam_step(blocks, AdamSpec::new(0.5), 1).unwrap();
    let (w, g) = (cpu.read(blocks.weights).unwrap(), cpu.read(blocks.grads).unwrap());
    // The first step is lr against the sign; ε/|g| shortens it where a gradient is tiny.
    assert!(w.iter().zip(&g).all(|(w, g)| (w + 0.5 * g.signum()).abs() <= 1e-5 + 1e-8 / g.abs()));
}

#[test]
fn step_zero_is_refused() {
    let (mut cpu, mut layout) = (Cpu::new(), Layout::default());
    let blocks = cpu.plan_params(&mut layout, 5);
    cpu.reserve(&layout).unwrap();
    assert!(cpu.adam_step(blocks, AdamSpec::new(0.1), 0).unwrap_err().to_string().contains("count steps from 1"));
}
