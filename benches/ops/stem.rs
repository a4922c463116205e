//! The end of the stem: 64 channels at half the input's side, a batch in two groups.

use criterion::Criterion;
use picie::device::ops::{
    NormParams, StemBackward, StemForward, StemInfer, StemMaxima, StemSpec, plan_stem,
    stem_backward, stem_forward, stem_infer,
};
use picie::device::{Layout, Pool};

use crate::{Place, fill, signed, time};

pub fn bench(c: &mut Criterion, place: &Place) {
    let mut group = place.group(c, "stem");
    let spec = StemSpec { groups: 2, n: place.images, h: place.side / 2, w: place.side / 2, c: 64 };
    let dev = &mut *(place.engine)();
    let mut layout = Layout::new(dev.dtype());
    let plan = plan_stem(dev, spec).expect("the engine runs ResNet's shapes");
    let argmax = layout.take(Pool::Acts, "argmax", spec.z_len());
    let mut acts = |name, len| layout.acts(Pool::Acts, name, len);
    let [x, dx] = ["x", "dx"].map(|name| acts(name, spec.x_len()));
    let [z, dz, peak] = ["z", "dz", "peak"].map(|name| acts(name, spec.z_len()));
    let mut take = |name, len| layout.take::<f32>(Pool::Acts, name, len);
    let [gamma, beta, running_mean, running_var, dgamma, dbeta] =
        ["gamma", "beta", "mean", "var", "dgamma", "dbeta"].map(|name| take(name, spec.c));
    let saved = take("saved", spec.saved_len());
    dev.reserve(&layout).expect("memory for one stem");
    fill(dev, [x, dz]);
    for slot in [gamma, beta] {
        dev.write(slot, &signed(spec.c)).expect("a slot of this layout");
    }

    let params = NormParams { gamma, beta, running_mean, running_var };
    let maxima = StemMaxima { argmax, peak };
    let forward = StemForward { z, maxima: Some(maxima), saved, x, params };
    time(&mut group, dev, "forward", &spec, forward, |dev, a| stem_forward(dev, &plan, a));
    let infer = StemInfer { z, x };
    time(&mut group, dev, "infer", &spec, infer, |dev, a| stem_infer(dev, &plan, a));
    let backward = StemBackward { dx, dgamma, dbeta, dz, maxima, x, saved, params };
    time(&mut group, dev, "backward", &spec, backward, |dev, a| stem_backward(dev, &plan, a));
    group.finish();
}
