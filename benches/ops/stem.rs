//! The end of the stem: 64 channels at half the input's side, a batch in two groups.

use criterion::{Criterion, Throughput};
use picie::device::ops::{NormParams, StemSpec};
use picie::device::{Backend, Layout, Pool};

use crate::{Place, fill, signed, time};

/// Bytes are the least that memory must move: each tensor once, those that need a sum first twice.
pub fn bench<B: Backend>(c: &mut Criterion, place: &Place<B>) {
    let mut group = place.group(c, "stem");
    let spec = StemSpec { groups: 2, n: place.images, h: place.side / 2, w: place.side / 2, c: 64 };
    let (mut dev, mut layout) = ((place.engine)(), Layout::default());
    let plan = dev.plan_stem(spec).expect("the engine runs ResNet's shapes");
    let argmax = layout.take::<u8>(Pool::Acts, "argmax", spec.z_len());
    let mut acts = |name, len| layout.take::<B::Act>(Pool::Acts, name, len);
    let [x, dx] = ["x", "dx"].map(|name| acts(name, spec.x_len()));
    let [z, dz] = ["z", "dz"].map(|name| acts(name, spec.z_len()));
    let mut take = |name, len| layout.take::<f32>(Pool::Acts, name, len);
    let [gamma, beta, running_mean, running_var, dgamma, dbeta] =
        ["gamma", "beta", "mean", "var", "dgamma", "dbeta"].map(|name| take(name, spec.c));
    let saved = take("saved", spec.saved_len());
    dev.reserve(&layout).expect("memory for one stem");
    fill(&mut dev, [x, dz]);
    for slot in [gamma, beta] {
        dev.write(slot, &signed(spec.c)).expect("a slot of this layout");
    }
    let params = NormParams { gamma, beta, running_mean, running_var };
    let act = size_of::<B::Act>();
    let bytes =
        |x: usize, z: usize| Throughput::Bytes((act * x * spec.x_len() + z * spec.z_len()) as u64);
    // x twice, z, argmax of a byte.
    group.throughput(bytes(2, act + 1));
    group.bench_function("forward", |b| {
        time(b, &mut dev, |dev| dev.stem_forward(&plan, z, Some(argmax), saved, x, params));
    });
    group.throughput(bytes(1, act));
    group.bench_function("infer", |b| time(b, &mut dev, |dev| dev.stem_infer(&plan, z, x)));
    // x, dz and argmax twice, dx.
    group.throughput(bytes(3, 2 * act + 2));
    group.bench_function("backward", |b| {
        time(b, &mut dev, |dev| {
            dev.stem_backward(&plan, dx, dgamma, dbeta, dz, argmax, x, saved, params)
        });
    });
    group.finish();
}
