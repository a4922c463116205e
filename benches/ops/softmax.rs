//! A batch at a quarter of the input's side, as the methods that train through scores use it: few
//! classes, and many.

use criterion::{Criterion, Throughput};
use picie::device::ops::{SoftmaxLabels, SoftmaxSpec};
use picie::device::{Backend, Layout, Pool};

use crate::{Place, signed, time};

pub fn bench<B: Backend>(c: &mut Criterion, place: &Place<B>) {
    let mut group = place.group(c, "softmax");
    for (n, k) in [(place.images, 27), (place.images / 16, 500)] {
        let spec = SoftmaxSpec { n, pixels: (place.side / 4).pow(2), k };
        let (mut dev, mut layout) = ((place.engine)(), Layout::default());
        let plan = dev.plan_softmax(spec).unwrap();
        let x = layout.take::<f32>(Pool::State, "x", spec.len());
        let dp = layout.take::<f32>(Pool::State, "dp", spec.len());
        let losses = layout.take::<f32>(Pool::State, "losses", n);
        let labels = layout.take::<u16>(Pool::State, "labels", spec.rows());
        let index = layout.take::<u32>(Pool::State, "index", n);
        let weights = layout.take::<f32>(Pool::State, "weights", k);
        dev.reserve(&layout).unwrap();
        dev.write(x, &signed(x.len)).unwrap();
        dev.write(dp, &signed(dp.len)).unwrap();
        dev.write(labels, &Vec::from_iter((0..spec.rows()).map(|i| (i % k) as u16))).unwrap();
        dev.write(index, &Vec::from_iter(0..n as u32)).unwrap();
        dev.write(weights, &vec![1.0; k]).unwrap();
        let labels = SoftmaxLabels { labels, index, weights };

        group.throughput(Throughput::Elements(spec.len() as u64));
        let shape = format!("{n}×{}×{k}", spec.pixels);
        group.bench_function(format!("forward {shape}"), |b| {
            time(b, &mut dev, |dev| dev.softmax_forward(&plan, x));
        });
        group.bench_function(format!("backward {shape}"), |b| {
            time(b, &mut dev, |dev| dev.softmax_backward(&plan, dp, x));
        });
        group.bench_function(format!("loss {shape}"), |b| {
            time(b, &mut dev, |dev| dev.softmax_loss(&plan, losses, x, labels, 1.0));
        });
    }
}
