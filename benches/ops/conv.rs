//! Every distinct convolution of ResNet-18 + FPN.

use criterion::{Criterion, Throughput};
use picie::device::ops::{ConvSpec, DataGrad, Epilogue, Uses, WeightGrad};
use picie::device::{Backend, Layout, Pool};

use crate::{Place, fill, time};

/// (input side over this, c, k, r, stride, pad).
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

/// Elements a second are FLOP a second of the direct algorithm, whatever the engine does instead.
pub fn bench<B: Backend>(c: &mut Criterion, place: &Place<B>) {
    let mut group = place.group(c, "conv");
    for (ratio, channels, k, r, stride, pad) in SHAPES {
        let side = place.side / ratio;
        let spec = ConvSpec { n: place.images, h: side, w: side, c: channels, k, r, stride, pad };
        let (mut dev, mut layout) = ((place.engine)(), Layout::default());
        let uses = Uses::default().backward(DataGrad::Overwrite, WeightGrad::Weight);
        let plan = dev.plan_conv(spec, uses).expect("the engine runs ResNet's shapes");
        let mut take = |name, len| layout.take::<B::Act>(Pool::Acts, name, len);
        let (x, dx) = (take("x", spec.x_len()), take("dx", spec.x_len()));
        let (y, dy) = (take("y", spec.y_len()), take("dy", spec.y_len()));
        let (w, dw) = (take("w", spec.w_len()), layout.take::<f32>(Pool::Acts, "dw", spec.w_len()));
        dev.reserve(&layout).expect("memory for one convolution");
        fill(&mut dev, [x, w, dy]);
        group.throughput(Throughput::Elements(spec.flops() as u64));
        let name = format!("{r}x{r}/{stride} {side}x{side} {channels}-{k}");
        group.bench_function(format!("forward {name}"), |b| {
            time(b, &mut dev, |dev| dev.conv_forward(&plan, y, x, w, Epilogue::NONE));
        });
        group.bench_function(format!("backward data {name}"), |b| {
            time(b, &mut dev, |dev| dev.conv_backward_data(&plan, dx, dy, w, false));
        });
        group.bench_function(format!("backward weight {name}"), |b| {
            time(b, &mut dev, |dev| dev.conv_backward_weight(&plan, dw, None, x, dy));
        });
    }
    group.finish();
}
