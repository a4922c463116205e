//! The histogram of 32 label maps of 320².

use criterion::{Criterion, Throughput};
use picie::base::rng::{Rng, Stream};
use picie::device::cpu::Cpu;
use picie::device::ops::{Confusion, Memory};
use picie::device::{Layout, Pool};

use crate::{MEASURE, WARM_UP};

pub fn bench(c: &mut Criterion) {
    let len = 32 * 320 * 320;
    let (mut cpu, mut layout) = (Cpu::new(), Layout::default());
    let pred = layout.take::<u16>(Pool::Acts, "pred", len);
    let labels = layout.take::<u8>(Pool::Acts, "labels", len);
    let counts = layout.take::<u32>(Pool::State, "counts", 27 * 27);
    cpu.reserve(&layout).unwrap();
    let mut rng = Rng::new(1, Stream::Other, 0, 0);
    cpu.write(pred, &(0..len).map(|_| rng.below(27) as u16).collect::<Vec<_>>()).unwrap();
    cpu.write(labels, &(0..len).map(|_| rng.below(27) as u8).collect::<Vec<_>>()).unwrap();
    let mut group = c.benchmark_group("confusion");
    group.throughput(Throughput::Elements(len as u64)).sample_size(20).warm_up_time(WARM_UP).measurement_time(MEASURE);
    group.bench_function("count", |b| b.iter(|| cpu.confusion(counts, pred, labels, 27).unwrap()));
}
