//! IIC's loss and gradient: pairs of 32×32 maps of 45 classes, upsampled 4-fold, 441 shifts of up
//! to 10 pixels; the CPU 8 pairs, a GPU the 60 of a step.

use criterion::Criterion;
use picie::device::ops::{IicLoss, IicSpec, iic_loss, plan_iic};
use picie::device::{Layout, Pool};

use crate::{Place, signed, time};

pub fn bench(c: &mut Criterion, place: &Place) {
    let n = if place.images < 60 { 8 } else { 60 };
    let spec = IicSpec { n, h: 32, w: 32, k: 45, up: 4, t: 10, collapsed: false, lambda: 1.0 };
    let dev = &mut *(place.engine)();
    let mut layout = Layout::new(dev.dtype());
    let plan = plan_iic(dev, spec).unwrap();
    let [maps, dmaps] =
        ["maps", "dmaps"].map(|name| layout.take(Pool::State, name, spec.maps_len()));
    let loss = layout.take(Pool::State, "loss", 1);
    dev.reserve(&layout).unwrap();
    let mut numbers: Vec<f32> = signed(maps.len).into_iter().map(f32::exp).collect();
    for pixel in numbers.chunks_mut(spec.k) {
        let sum: f32 = pixel.iter().sum();
        pixel.iter_mut().for_each(|p| *p /= sum);
    }
    dev.write(maps, &numbers).unwrap();

    let mut group = place.group(c, "iic");
    let a = IicLoss { loss, dmaps, maps, scale: 1.0 };
    time(&mut group, dev, "loss", &spec, a, |dev, a| iic_loss(dev, &plan, a));
}
