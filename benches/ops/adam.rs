//! One step over the parameters of ResNet-18 and its FPN; seven streams of 4 bytes a parameter, and
//! the copy that convolutions read.

use criterion::{Criterion, Throughput};
use picie::device::ops::AdamSpec;
use picie::device::{Backend, Layout, Pool};

use crate::{Place, time};

pub fn bench<B: Backend>(c: &mut Criterion, place: &Place<B>) {
    let len = 11_300_000;
    let (mut dev, mut layout) = ((place.engine)(), Layout::default());
    let blocks = dev.plan_params(&mut layout, len);
    let (adam, correction) = (AdamSpec::new(1e-3), layout.take(Pool::State, "correction", 2));
    dev.reserve(&layout).unwrap();
    dev.write(correction, &adam.correction(1, 1.0)).unwrap();
    dev.write(blocks.grads, &vec![0.01; len]).unwrap();
    let mut group = place.group(c, "adam");
    let copy = if size_of::<B::Act>() == 4 { 0 } else { size_of::<B::Act>() };
    group.throughput(Throughput::Bytes(((28 + copy) * len) as u64));
    group.bench_function("step", |b| {
        time(b, &mut dev, |dev| dev.adam_step(blocks, adam, correction))
    });
}
