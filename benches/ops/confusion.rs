//! The histogram of 32 label maps of 320².

use criterion::{Criterion, Throughput};
use picie::base::rng::{Rng, Stream};
use picie::device::{Backend, Layout, Pool};

use crate::{Place, time};

pub fn bench<B: Backend>(c: &mut Criterion, place: &Place<B>) {
    let len = 32 * 320 * 320;
    let (mut dev, mut layout) = ((place.engine)(), Layout::default());
    let pred = layout.take::<u16>(Pool::Acts, "pred", len);
    let labels = layout.take::<u8>(Pool::Acts, "labels", len);
    let counts = layout.take::<u32>(Pool::State, "counts", 27 * 27);
    dev.reserve(&layout).unwrap();
    let mut rng = Rng::new(1, Stream::Other, 0, 0);
    dev.write(pred, &(0..len).map(|_| rng.below(27) as u16).collect::<Vec<_>>()).unwrap();
    dev.write(labels, &(0..len).map(|_| rng.below(27) as u8).collect::<Vec<_>>()).unwrap();
    let mut group = place.group(c, "confusion");
    group.throughput(Throughput::Elements(len as u64));
    group.bench_function("count", |b| {
        time(b, &mut dev, |dev| dev.confusion(counts, pred, labels, 27))
    });
}
