//! Every distinct convolution of ResNet-18 + FPN at 128² with 16 images.

use criterion::{Criterion, Throughput};
use picie::device::cpu::Cpu;
use picie::device::ops::{Conv, ConvSpec, DataGrad, Epilogue, Memory, Uses, WeightGrad};
use picie::device::{Layout, Pool};

/// (side, c, k, r, stride, pad).
const SHAPES: [(usize, usize, usize, usize, usize, usize); 15] = [
    (128, 4, 64, 7, 2, 3),
    (32, 64, 64, 3, 1, 1),
    (32, 64, 128, 3, 2, 1),
    (16, 128, 128, 3, 1, 1),
    (16, 128, 256, 3, 2, 1),
    (8, 256, 256, 3, 1, 1),
    (8, 256, 512, 3, 2, 1),
    (4, 512, 512, 3, 1, 1),
    (32, 64, 128, 1, 2, 0),
    (16, 128, 256, 1, 2, 0),
    (8, 256, 512, 1, 2, 0),
    (32, 64, 128, 1, 1, 0),
    (16, 128, 128, 1, 1, 0),
    (8, 256, 128, 1, 1, 0),
    (4, 512, 128, 1, 1, 0),
];

/// Elements a second are FLOP a second of the direct algorithm, whatever the engine does instead.
pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("conv");
    group.sample_size(10).warm_up_time(super::WARM_UP).measurement_time(super::MEASURE);
    for (side, channels, k, r, stride, pad) in SHAPES {
        let spec = ConvSpec { n: super::IMAGES, h: side, w: side, c: channels, k, r, stride, pad };
        let (mut dev, mut layout) = (Cpu::new(), Layout::default());
        let uses = Uses::default().backward(DataGrad::Overwrite, WeightGrad::Weight);
        let plan = dev.plan_conv(spec, uses).expect("the engine runs ResNet's shapes");
        let mut take = |name, len| layout.take::<f32>(Pool::Acts, name, len);
        let (x, dx) = (take("x", spec.x_len()), take("dx", spec.x_len()));
        let (w, dw) = (take("w", spec.w_len()), take("dw", spec.w_len()));
        let (y, dy) = (take("y", spec.y_len()), take("dy", spec.y_len()));
        dev.reserve(&layout).expect("memory for one convolution");
        for slot in [x, w, dy] {
            dev.write(slot, &super::signed(slot.len)).expect("a slot of this layout");
        }
        group.throughput(Throughput::Elements(spec.flops() as u64));
        let name = format!("{r}x{r}/{stride} {side}x{side} {channels}-{k}");
        group.bench_function(format!("forward {name}"), |b| {
            b.iter(|| dev.conv_forward(&plan, y, x, w, Epilogue::NONE).expect("sizes agree"));
        });
        group.bench_function(format!("backward data {name}"), |b| {
            b.iter(|| dev.conv_backward_data(&plan, dx, dy, w, false).expect("sizes agree"));
        });
        group.bench_function(format!("backward weight {name}"), |b| {
            b.iter(|| dev.conv_backward_weight(&plan, dw, None, x, dy).expect("sizes agree"));
        });
    }
    group.finish();
}
