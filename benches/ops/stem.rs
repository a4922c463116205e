//! The end of the stem at 128²: 64 channels of 64², 16 images in two groups.

use criterion::{Criterion, Throughput};
use picie::device::cpu::Cpu;
use picie::device::ops::{Memory, NormParams, Stem, StemSpec};
use picie::device::{Layout, Pool};

/// Bytes are the least that memory must move: each tensor once, those that need a sum first twice.
pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("stem");
    group.sample_size(10).warm_up_time(super::WARM_UP).measurement_time(super::MEASURE);
    let spec = StemSpec { groups: 2, n: super::IMAGES, h: 64, w: 64, c: 64 };
    let (mut dev, mut layout) = (Cpu::new(), Layout::default());
    let plan = dev.plan_stem(spec).expect("the engine runs ResNet's shapes");
    let argmax = layout.take::<u8>(Pool::Acts, "argmax", spec.z_len());
    let mut take = |name, len| layout.take::<f32>(Pool::Acts, name, len);
    let [x, dx] = ["x", "dx"].map(|name| take(name, spec.x_len()));
    let [z, dz] = ["z", "dz"].map(|name| take(name, spec.z_len()));
    let [gamma, beta, running_mean, running_var, dgamma, dbeta] =
        ["gamma", "beta", "mean", "var", "dgamma", "dbeta"].map(|name| take(name, spec.c));
    let saved = take("saved", spec.saved_len());
    dev.reserve(&layout).expect("memory for one stem");
    for slot in [x, dz, gamma, beta] {
        dev.write(slot, &super::signed(slot.len)).expect("a slot of this layout");
    }
    let params = NormParams { gamma, beta, running_mean, running_var };
    let bytes = |x: usize, z: usize| Throughput::Bytes((4 * x * spec.x_len() + z * spec.z_len()) as u64);
    // x twice; z of 4 bytes and argmax of 1.
    group.throughput(bytes(2, 5));
    group.bench_function("forward", |b| {
        b.iter(|| dev.stem_forward(&plan, z, Some(argmax), saved, x, params).expect("sizes agree"));
    });
    group.throughput(bytes(1, 4));
    group.bench_function("infer", |b| b.iter(|| dev.stem_infer(&plan, z, x).expect("sizes agree")));
    // x, dz and argmax twice, dx.
    group.throughput(bytes(3, 10));
    group.bench_function("backward", |b| {
        b.iter(|| {
            dev.stem_backward(&plan, dx, dgamma, dbeta, dz, argmax, x, saved, params).expect("sizes agree");
        });
    });
    group.finish();
}
