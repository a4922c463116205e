//! Batch norm with residual and ReLU on ResNet-18's four levels, a batch in two groups.

use criterion::{Criterion, Throughput};
use picie::device::ops::{NormGrads, NormParams, NormSpec};
use picie::device::{Backend, Layout, Pool};

use crate::{Place, fill, signed, time};

/// Bytes are the least that memory must move: each tensor once, those that need a sum first twice.
pub fn bench<B: Backend>(c: &mut Criterion, place: &Place<B>) {
    let mut group = place.group(c, "norm");
    for (ratio, channels) in [(4, 64), (8, 128), (16, 256), (32, 512)] {
        let side = place.side / ratio;
        let spec = NormSpec { groups: 2, rows: place.images / 2 * side * side, c: channels };
        let (mut dev, mut layout) = ((place.engine)(), Layout::default());
        let plan = dev.plan_norm(spec).expect("the engine runs ResNet's shapes");
        let [x, z, residual, dz, dx, dresidual] = ["x", "z", "residual", "dz", "dx", "dresidual"]
            .map(|name| layout.take::<B::Act>(Pool::Acts, name, spec.len()));
        let mut take = |name, len| layout.take::<f32>(Pool::Acts, name, len);
        let [gamma, beta, running_mean, running_var, dgamma, dbeta] =
            ["gamma", "beta", "mean", "var", "dgamma", "dbeta"].map(|name| take(name, channels));
        let saved = take("saved", spec.saved_len());
        dev.reserve(&layout).expect("memory for one norm");
        fill(&mut dev, [x, residual, dz]);
        for slot in [gamma, beta] {
            dev.write(slot, &signed(channels)).expect("a slot of this layout");
        }
        let params = NormParams { gamma, beta, running_mean, running_var };
        let bytes =
            |tensors: usize| Throughput::Bytes((tensors * size_of::<B::Act>() * spec.len()) as u64);
        let name = format!("{side}x{side} {channels}");
        // x twice, residual, z.
        group.throughput(bytes(4));
        group.bench_function(format!("forward {name}"), |b| {
            time(b, &mut dev, |dev| {
                dev.norm_forward(&plan, z, saved, x, Some(residual), true, params)
            });
        });
        // dz, z and x twice, dx, dresidual.
        group.throughput(bytes(8));
        group.bench_function(format!("backward {name}"), |b| {
            time(b, &mut dev, |dev| {
                let grads = NormGrads { dx, dresidual: Some(dresidual), dgamma, dbeta };
                dev.norm_backward(&plan, grads, dz, Some(z), x, saved, gamma)
            });
        });
    }
    group.finish();
}
