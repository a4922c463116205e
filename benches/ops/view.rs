//! One epoch renders every image six times; one such render of a batch, from images stored at twice
//! the input's side.

use criterion::Criterion;
use picie::base::rng::{Rng, Stream};
use picie::device::ops::{
    Crop, Photo, ViewRender, ViewSobel, ViewSpec, plan_view, view_render, view_sobel,
};
use picie::device::{Layout, Pool};

use crate::{Place, time};

pub fn bench(c: &mut Criterion, place: &Place) {
    let (stored, side) = (2 * place.side, place.side);
    let spec =
        ViewSpec { n: place.images.min(64), sh: stored, sw: stored, h: side, w: side, channels: 8 };
    let dev = &mut *(place.engine)();
    let mut layout = Layout::new(dev.dtype());
    let plan = plan_view(dev, spec).unwrap();
    let x = layout.acts(Pool::Acts, "x", spec.x_len());
    let images = layout.take(Pool::Staging, "images", spec.n * spec.sh * spec.sw * 3);
    let index = layout.take(Pool::Staging, "index", spec.n);
    let photo = layout.take(Pool::Staging, "photo", spec.n);
    let crops = layout.take(Pool::Staging, "crops", spec.n);
    dev.reserve(&layout).unwrap();

    let mut rng = Rng::new(1, Stream::Other, 0, 0);
    let bytes: Vec<u8> = (0..images.len).map(|_| rng.u32() as u8).collect();
    dev.write(images, &bytes).unwrap();
    dev.write(index, &Vec::from_iter(0..spec.n as u32)).unwrap();
    // Every step on every image: the worst case, with contrast in several positions.
    let draw = Photo {
        brightness: 1.2,
        contrast: 0.8,
        saturation: 1.1,
        hue: 0.07,
        sigma: 0.6,
        ..Photo::NONE
    };
    let orders = [0b11_10_01_00, 0b11_10_00_01, 0b01_00_11_10, 0b00_01_10_11];
    let draws: Vec<Photo> = (0..spec.n).map(|i| Photo { order: orders[i % 4], ..draw }).collect();
    dev.write(photo, &draws).unwrap();
    dev.write(
        crops,
        &vec![Crop { top: 20, left: 40, side: stored as u32 * 3 / 4, flip: 1 }; spec.n],
    )
    .unwrap();

    let mut group = place.group(c, "view");
    for (name, photo, crops) in [
        ("photometric + crop (view 1)", Some(photo), Some(crops)),
        ("photometric + resize (view 2)", Some(photo), None),
        ("resize", None, None),
    ] {
        let render = ViewRender { x, kept: None, images, index, photo, crops };
        time(&mut group, dev, name, &spec, render, |dev, a| view_render(dev, &plan, a));
    }
    time(&mut group, dev, "Sobel", &spec, ViewSobel { x }, |dev, a| view_sobel(dev, &plan, a));
    group.finish();
}
