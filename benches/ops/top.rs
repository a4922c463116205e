//! A batch of the search for nearest neighbors: the best pixel of each image, and the best pixels
//! of all.

use criterion::Criterion;
use picie::device::ops::{TopSpec, TopUpdate, plan_top, top_update};
use picie::device::{Layout, Pool};

use crate::{Place, signed, time};

pub fn bench(c: &mut Criterion, place: &Place) {
    let mut group = place.group(c, "top");
    let pixels = (place.side / 4).pow(2);
    let images = place.images.min(32);
    for (q, of) in [(1, pixels), (32, pixels), (32, 1)] {
        let spec = TopSpec { rows: images * pixels, q, n: 10, group: of };
        let dev = &mut *(place.engine)();
        let mut layout = Layout::new(dev.dtype());
        let plan = plan_top(dev, spec).unwrap();
        let scores = layout.take(Pool::State, "scores", spec.rows * q);
        let best = layout.take(Pool::State, "best", q * spec.n);
        let places = layout.take(Pool::State, "places", q * spec.n);
        dev.reserve(&layout).unwrap();
        dev.write(scores, &signed(scores.len)).unwrap();
        dev.write(best, &vec![f32::NEG_INFINITY; best.len]).unwrap();
        dev.write(places, &vec![u32::MAX; places.len]).unwrap();

        let name = format!("{} of {}, groups of {of}, {q} queries", spec.n, spec.rows);
        let update = TopUpdate { best, places, scores, first: 0 };
        time(&mut group, dev, name, &spec, update, |dev, a| top_update(dev, &plan, a));
    }
}
