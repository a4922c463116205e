//! IIC's loss and gradient: pairs of 32×32 maps of 45 classes, upsampled 4-fold, 441 shifts of up
//! to 10 pixels; the CPU 8 pairs, a GPU the 60 of a step.

use criterion::{Criterion, Throughput};
use picie::device::ops::IicSpec;
use picie::device::{Backend, Layout, Pool};

use crate::{Place, signed, time};

pub fn bench<B: Backend>(c: &mut Criterion, place: &Place<B>) {
    let n = if place.images < 60 { 8 } else { 60 };
    let spec = IicSpec { n, h: 32, w: 32, k: 45, up: 4, t: 10, collapsed: false, lambda: 1.0 };
    let (mut dev, mut layout) = ((place.engine)(), Layout::default());
    let plan = dev.plan_iic(spec).unwrap();
    let mut f32s = |name: &str, len| layout.take::<f32>(Pool::State, name, len);
    let (maps, dmaps, loss) =
        (f32s("maps", spec.maps()), f32s("dmaps", spec.maps()), f32s("loss", 1));
    dev.reserve(&layout).unwrap();
    let mut numbers: Vec<f32> = signed(maps.len).into_iter().map(f32::exp).collect();
    for pixel in numbers.chunks_mut(spec.k) {
        let sum: f32 = pixel.iter().sum();
        pixel.iter_mut().for_each(|p| *p /= sum);
    }
    dev.write(maps, &numbers).unwrap();

    let mut group = place.group(c, "iic");
    group.throughput(Throughput::Elements(n as u64));
    group.bench_function("loss", |b| {
        time(b, &mut dev, |dev| dev.iic_loss(&plan, loss, dmaps, maps, 1.0))
    });
}
