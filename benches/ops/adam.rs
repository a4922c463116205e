//! One step over the parameters of ResNet-18 and its FPN.

use criterion::Criterion;
use picie::device::ops::{AdamSpec, AdamStep, ParamBlocks, Unplanned, adam_step};
use picie::device::{Layout, Pool};

use crate::{Place, time};

pub fn bench(c: &mut Criterion, place: &Place) {
    let len = 11_300_000;
    let dev = &mut *(place.engine)();
    let mut layout = Layout::new(dev.dtype());
    let (blocks, spec) = (ParamBlocks::plan(&mut layout, len), AdamSpec::new(1e-3));
    let correction = layout.take(Pool::State, "correction", 2);
    dev.reserve(&layout).unwrap();
    dev.write(correction, &spec.correction(1, 1.0)).unwrap();
    dev.write(blocks.grads, &vec![0.01; len]).unwrap();

    let mut group = place.group(c, "adam");
    time(&mut group, dev, "step", &Unplanned, AdamStep { blocks, spec, correction }, adam_step);
}
