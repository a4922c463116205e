//! One step over the parameters of ResNet-18 and its FPN; seven streams of 4 bytes a parameter.

use criterion::{Criterion, Throughput};
use picie::device::cpu::Cpu;
use picie::device::ops::{Adam, AdamSpec, Memory};
use picie::device::{Layout, Pool};

use crate::{MEASURE, WARM_UP};

pub fn bench(c: &mut Criterion) {
    let len = 11_300_000;
    let (mut cpu, mut layout) = (Cpu::new(), Layout::default());
    let blocks = cpu.plan_params(&mut layout, len);
    let (adam, correction) = (AdamSpec::new(1e-3), layout.take(Pool::State, "correction", 2));
    cpu.reserve(&layout).unwrap();
    cpu.write(correction, &adam.correction(1)).unwrap();
    cpu.write(blocks.grads, &vec![0.01; len]).unwrap();
    let mut group = c.benchmark_group("adam");
    group
        .throughput(Throughput::Bytes(28 * len as u64))
        .sample_size(20)
        .warm_up_time(WARM_UP)
        .measurement_time(MEASURE);
    group.bench_function("step", |b| b.iter(|| cpu.adam_step(blocks, adam, correction).unwrap()));
}
