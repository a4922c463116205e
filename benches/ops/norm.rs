//! Batch norm with residual and ReLU on ResNet-18's four levels at 128², 16 images in two groups.

use criterion::{Criterion, Throughput};
use picie::device::cpu::Cpu;
use picie::device::ops::{Memory, Norm, NormGrads, NormParams, NormSpec};
use picie::device::{Layout, Pool};

/// Bytes are the least that memory must move: each tensor once, those that need a sum first twice.
pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("norm");
    group.sample_size(10).warm_up_time(super::WARM_UP).measurement_time(super::MEASURE);
    for (side, channels) in [(32, 64), (16, 128), (8, 256), (4, 512)] {
        let spec = NormSpec { groups: 2, rows: super::IMAGES / 2 * side * side, c: channels };
        let (mut dev, mut layout) = (Cpu::new(), Layout::default());
        let plan = dev.plan_norm(spec).expect("the engine runs ResNet's shapes");
        let mut take = |name, len| layout.take::<f32>(Pool::Acts, name, len);
        let [x, z, residual, dz, dx, dresidual] =
            ["x", "z", "residual", "dz", "dx", "dresidual"].map(|name| take(name, spec.len()));
        let [gamma, beta, running_mean, running_var, dgamma, dbeta] =
            ["gamma", "beta", "mean", "var", "dgamma", "dbeta"].map(|name| take(name, channels));
        let saved = take("saved", spec.saved_len());
        dev.reserve(&layout).expect("memory for one norm");
        for slot in [x, residual, dz, gamma, beta] {
            dev.write(slot, &super::signed(slot.len)).expect("a slot of this layout");
        }
        let params = NormParams { gamma, beta, running_mean, running_var };
        let bytes = |tensors: usize| Throughput::Bytes((tensors * 4 * spec.len()) as u64);
        let name = format!("{side}x{side} {channels}");
        // x twice, residual, z.
        group.throughput(bytes(4));
        group.bench_function(format!("forward {name}"), |b| {
            b.iter(|| dev.norm_forward(&plan, z, saved, x, Some(residual), true, params).expect("sizes agree"));
        });
        // dz, z and x twice, dx, dresidual.
        group.throughput(bytes(8));
        group.bench_function(format!("backward {name}"), |b| {
            b.iter(|| {
                let grads = NormGrads { dx, dresidual: Some(dresidual), dgamma, dbeta };
                dev.norm_backward(&plan, grads, dz, Some(z), x, saved, gamma).expect("sizes agree");
            });
        });
    }
    group.finish();
}
