//! A batch of the search for nearest neighbours: the best pixel of each image, and the best pixels
//! of all.

use criterion::{Criterion, Throughput};
use picie::device::ops::TopSpec;
use picie::device::{Backend, Layout, Pool};

use crate::{Place, signed, time};

pub fn bench<B: Backend>(c: &mut Criterion, place: &Place<B>) {
    let mut group = place.group(c, "top");
    let pixels = (place.side / 4).pow(2);
    let images = place.images.min(32);
    for (q, of) in [(1, pixels), (32, pixels), (32, 1)] {
        let spec = TopSpec { rows: images * pixels, q, n: 10, group: of };
        let (mut dev, mut layout) = ((place.engine)(), Layout::default());
        let plan = dev.plan_top(spec).unwrap();
        let scores = layout.take::<f32>(Pool::State, "scores", spec.rows * q);
        let best = layout.take::<f32>(Pool::State, "best", q * spec.n);
        let places = layout.take::<u32>(Pool::State, "places", q * spec.n);
        dev.reserve(&layout).unwrap();
        dev.write(scores, &signed(scores.len)).unwrap();
        dev.write(best, &vec![f32::NEG_INFINITY; best.len]).unwrap();
        dev.write(places, &vec![u32::MAX; places.len]).unwrap();

        group.throughput(Throughput::Bytes(scores.bytes() as u64));
        group.bench_function(
            format!("{} of {}, groups of {of}, {q} queries", spec.n, spec.rows),
            |b| {
                time(b, &mut dev, |dev| dev.top_update(&plan, best, places, scores, 0));
            },
        );
    }
}
