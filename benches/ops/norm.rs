//! Batch norm with residual and ReLU on ResNet-18's four levels, a batch in two groups.

use criterion::Criterion;
use picie::device::ops::{
    NormBackward, NormForward, NormGate, NormGrads, NormParams, NormSpec, Normed, Residual,
    ResidualGrad, norm_backward, norm_forward, plan_norm,
};
use picie::device::{Layout, Pool};

use crate::{Place, fill, signed, time};

pub fn bench(c: &mut Criterion, place: &Place) {
    let mut group = place.group(c, "norm");
    for (ratio, channels) in [(4, 64), (8, 128), (16, 256), (32, 512)] {
        let side = place.side / ratio;
        let spec = NormSpec { groups: 2, rows: place.images / 2 * side * side, c: channels };
        let dev = &mut *(place.engine)();
        let mut layout = Layout::new(dev.dtype());
        let plan = plan_norm(dev, spec).expect("the engine runs ResNet's shapes");
        let [x, z, residual, dz, dx, dresidual] = ["x", "z", "residual", "dz", "dx", "dresidual"]
            .map(|name| layout.acts(Pool::Acts, name, spec.len()));
        let mask = layout.take::<u8>(Pool::Acts, "mask", spec.mask_len());
        let mut take = |name, len| layout.take::<f32>(Pool::Acts, name, len);
        let [gamma, beta, running_mean, running_var] =
            ["gamma", "beta", "mean", "var"].map(|name| take(name, channels));
        let [dgamma, dbeta, dgamma_two, dbeta_two] =
            ["dgamma", "dbeta", "dgamma 2", "dbeta 2"].map(|name| take(name, channels));
        let [saved, saved_two] = ["saved", "saved 2"].map(|name| take(name, spec.saved_len()));
        dev.reserve(&layout).expect("memory for one norm");
        fill(dev, [x, residual, dz]);
        for slot in [gamma, beta] {
            dev.write(slot, &signed(channels)).expect("a slot of this layout");
        }

        let name = format!("{side}x{side} {channels}");
        let params = NormParams { gamma, beta, running_mean, running_var };
        let other = Normed { x: residual, saved: saved_two, gamma, beta };
        for (what, residual) in [
            ("forward", Residual::Map(residual)),
            ("forward with a second norm", Residual::Norm(other)),
        ] {
            let (mask, residual) = (Some(mask), Some(residual));
            let forward = NormForward { z, mask, saved, x, residual, relu: true, params };
            time(&mut group, dev, format!("{what} {name}"), &spec, forward, |dev, a| {
                norm_forward(dev, &plan, a)
            });
        }
        let second = NormGrads {
            dx: dresidual,
            dgamma: dgamma_two,
            dbeta: dbeta_two,
            x: residual,
            saved: saved_two,
            gamma,
        };
        for (what, dresidual, gate) in [
            ("backward", Some(ResidualGrad::Map(dresidual)), NormGate::Mask(mask)),
            ("backward of two norms", Some(ResidualGrad::Norm(second)), NormGate::Mask(mask)),
            ("backward without residual", None, NormGate::Beta(beta)),
        ] {
            let backward = NormBackward { dx, dresidual, dgamma, dbeta, dz, gate, x, saved, gamma };
            time(&mut group, dev, format!("{what} {name}"), &spec, backward, |dev, a| {
                norm_backward(dev, &plan, a)
            });
        }
    }
    group.finish();
}
