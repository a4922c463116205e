//! The head at the feature sides of 128² and 320² inputs, 27 clusters, two images a batch.

use criterion::{BenchmarkId, Criterion, Throughput};
use picie::device::cpu::Cpu;
use picie::device::ops::{Classifier, Crop, Head, HeadInput, HeadSpec, LossInput, Memory, Merge};
use picie::device::{Layout, Pool};

use crate::{MEASURE, WARM_UP, signed};

const N: usize = 2;
const K: usize = 27;

pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("head");
    group.throughput(Throughput::Elements(N as u64)).sample_size(20).warm_up_time(WARM_UP).measurement_time(MEASURE);
    for side in [32, 80] {
        let spec = HeadSpec { n: N, h: side, w: side, d: 128, k: K, merge: Merge::Direct };
        let (mut cpu, mut layout) = (Cpu::new(), Layout::default());
        let plan = cpu.plan_head(spec).unwrap();
        let mut f32s = |name: &str, len| layout.take::<f32>(Pool::Acts, name, len);
        let laterals = [0, 1, 2, 3].map(|l| f32s("p", spec.lateral_len(l)));
        let dlaterals = [0, 1, 2, 3].map(|l| f32s("dp", spec.lateral_len(l)));
        let classifiers = [0, 1].map(|_| Classifier { w: f32s("w", K * 128), b: f32s("b", K), k: K });
        let (weights, losses) = ([0, 1].map(|_| f32s("weights", K)), f32s("losses", 2 * N));
        let (sums, score) = (f32s("sums", K * 128), f32s("score", 1));
        let labels = [0, 1].map(|_| layout.take::<u16>(Pool::State, "labels", N * spec.pixels()));
        let pred = layout.take::<u16>(Pool::State, "pred", N * 16 * spec.pixels());
        let counts = layout.take::<u32>(Pool::State, "counts", K);
        let index = layout.take::<u32>(Pool::State, "index", N);
        let crops = layout.take::<Crop>(Pool::State, "crops", N);
        cpu.reserve(&layout).unwrap();
        for slot in laterals.into_iter().chain(classifiers.map(|c| c.w)).chain(weights) {
            cpu.write(slot, &signed(slot.len)).unwrap();
        }
        cpu.write(index, &[1, 0]).unwrap();
        // Of one view's images, as in training: view 1 is whole, view 2 is warped.
        let window = Crop { top: 3, left: 5, side: side as u32 * 3 / 4, flip: 1 };
        cpu.write(crops, &[Crop::whole(side), window]).unwrap();
        let input = HeadInput { laterals, crops: Some(crops) };
        let loss = LossInput { classifiers, labels, index, weights, view: 1, scale: 0.25 };

        group.bench_function(BenchmarkId::new("assign", side), |b| {
            b.iter(|| cpu.head_assign(&plan, labels[0], counts, input, index, classifiers[0]).unwrap())
        });
        group.bench_function(BenchmarkId::new("accumulate", side), |b| {
            b.iter(|| cpu.head_accumulate(&plan, sums, counts, score, input, classifiers[0]).unwrap())
        });
        group.bench_function(BenchmarkId::new("loss", side), |b| {
            b.iter(|| cpu.head_loss(&plan, losses, dlaterals, input, loss).unwrap())
        });
        group.bench_function(BenchmarkId::new("predict", side), |b| {
            b.iter(|| cpu.head_predict(&plan, pred, (4 * side, 4 * side), input, classifiers[0]).unwrap())
        });
    }
}
