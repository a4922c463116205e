//! Every distinct convolution of ResNet-18 + FPN.

use criterion::Criterion;
use picie::device::ops::{
    ConvBackwardData, ConvBackwardWeight, ConvForward, ConvSpec, DataGrad, Epilogue, Uses,
    WeightGrad, conv_backward_data, conv_backward_weight, conv_forward, plan_conv,
};
use picie::device::{Layout, Pool};

use crate::{Place, fill, time};

/// Shapes as (the network's input side over the convolution's, c, k, r, stride, pad).
const SHAPES: [(usize, usize, usize, usize, usize, usize); 15] = [
    (1, 4, 64, 7, 2, 3),
    (4, 64, 64, 3, 1, 1),
    (4, 64, 128, 3, 2, 1),
    (8, 128, 128, 3, 1, 1),
    (8, 128, 256, 3, 2, 1),
    (16, 256, 256, 3, 1, 1),
    (16, 256, 512, 3, 2, 1),
    (32, 512, 512, 3, 1, 1),
    (4, 64, 128, 1, 2, 0),
    (8, 128, 256, 1, 2, 0),
    (16, 256, 512, 1, 2, 0),
    (4, 64, 128, 1, 1, 0),
    (8, 128, 128, 1, 1, 0),
    (16, 256, 128, 1, 1, 0),
    (32, 512, 128, 1, 1, 0),
];

pub fn bench(c: &mut Criterion, place: &Place) {
    let mut group = place.group(c, "conv");
    for (ratio, channels, k, r, stride, pad) in SHAPES {
        let side = place.side / ratio;
        let spec = ConvSpec { n: place.images, h: side, w: side, c: channels, k, r, stride, pad };
        let dev = &mut *(place.engine)();
        let mut layout = Layout::new(dev.dtype());
        let uses = Uses::default().backward(DataGrad::Overwrite, WeightGrad::Weight);
        let plan = plan_conv(dev, spec, uses).expect("the engine runs ResNet's shapes");
        let mut acts = |name, len| layout.acts(Pool::Acts, name, len);
        let [x, dx] = ["x", "dx"].map(|name| acts(name, spec.x_len()));
        let [y, dy] = ["y", "dy"].map(|name| acts(name, spec.y_len()));
        let w = acts("w", spec.w_len());
        let dw = layout.take(Pool::Acts, "dw", spec.w_len());
        dev.reserve(&layout).expect("memory for one convolution");
        fill(dev, [x, w, dy]);

        let name = format!("{r}x{r}/{stride} {side}x{side} {channels}-{k}");
        let forward = ConvForward { y, x, w, epilogue: Epilogue::NONE };
        time(&mut group, dev, format!("forward {name}"), &plan.spec, forward, |dev, a| {
            conv_forward(dev, &plan, a)
        });
        let data = ConvBackwardData { dx, dy, w, accumulate: false };
        time(&mut group, dev, format!("backward data {name}"), &plan.spec, data, |dev, a| {
            conv_backward_data(dev, &plan, a)
        });
        let weight = ConvBackwardWeight { dw, db: None, x, dy };
        time(&mut group, dev, format!("backward weight {name}"), &plan.spec, weight, |dev, a| {
            conv_backward_weight(dev, &plan, a)
        });
    }
    group.finish();
}
