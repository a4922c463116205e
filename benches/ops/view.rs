//! One epoch renders every image six times; one such render of 16 images, 256² → 128².

use criterion::{Criterion, Throughput};
use picie::base::rng::{Rng, Stream};
use picie::device::cpu::Cpu;
use picie::device::ops::{Crop, Memory, Photo, View, ViewSpec};
use picie::device::{Layout, Pool};

const SPEC: ViewSpec = ViewSpec { n: 16, sh: 256, sw: 256, h: 128, w: 128 };

pub fn bench(c: &mut Criterion) {
    let mut dev = Cpu::new();
    let plan = dev.plan_view(SPEC).unwrap();
    let mut layout = Layout::default();
    let x = layout.take(Pool::Acts, "x", SPEC.x_len());
    let images = layout.take(Pool::Staging, "images", SPEC.n * SPEC.sh * SPEC.sw * 3);
    let index = layout.take(Pool::Staging, "index", SPEC.n);
    let photo = layout.take(Pool::Staging, "photo", SPEC.n);
    let crops = layout.take(Pool::Staging, "crops", SPEC.n);
    dev.reserve(&layout).unwrap();

    let mut rng = Rng::new(1, Stream::Other, 0, 0);
    let bytes: Vec<u8> = (0..images.len).map(|_| rng.u32() as u8).collect();
    dev.write(images, &bytes).unwrap();
    dev.write(index, &Vec::from_iter(0..SPEC.n as u32)).unwrap();
    // Every step on every image: the worst case, with contrast in several positions.
    let draw = Photo { brightness: 1.2, contrast: 0.8, saturation: 1.1, hue: 0.07, sigma: 0.6, ..Photo::NONE };
    let orders = [0b11_10_01_00, 0b11_10_00_01, 0b01_00_11_10, 0b00_01_10_11];
    let draws: Vec<Photo> = (0..SPEC.n).map(|i| Photo { order: orders[i % 4], ..draw }).collect();
    dev.write(photo, &draws).unwrap();
    dev.write(crops, &[Crop { top: 20, left: 40, side: 192, flip: 1 }; SPEC.n]).unwrap();

    let mut group = c.benchmark_group("view 256 to 128");
    group.throughput(Throughput::Elements(SPEC.n as u64));
    for (name, photo, crops) in [
        ("photometric + crop (view 1)", Some(photo), Some(crops)),
        ("photometric + resize (view 2)", Some(photo), None),
        ("resize", None, None),
    ] {
        group.bench_function(name, |b| b.iter(|| dev.view_render(&plan, x, images, index, photo, crops).unwrap()));
    }
    group.finish();
}
