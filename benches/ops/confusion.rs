//! The histogram of 32 label maps of 320².

use criterion::Criterion;
use picie::base::rng::{Rng, Stream};
use picie::device::ops::{ConfusionCount, Unplanned, confusion_count};
use picie::device::{Layout, Pool};

use crate::{Place, time};

pub fn bench(c: &mut Criterion, place: &Place) {
    let len = 32 * 320 * 320;
    let dev = &mut *(place.engine)();
    let mut layout = Layout::new(dev.dtype());
    let pred = layout.take(Pool::Acts, "pred", len);
    let labels = layout.take(Pool::Acts, "labels", len);
    let counts = layout.take(Pool::State, "counts", 27 * 27);
    dev.reserve(&layout).unwrap();
    let mut rng = Rng::new(1, Stream::Other, 0, 0);
    dev.write(pred, &Vec::from_iter((0..len).map(|_| rng.below(27) as u16))).unwrap();
    dev.write(labels, &Vec::from_iter((0..len).map(|_| rng.below(27) as u8))).unwrap();

    let mut group = place.group(c, "confusion");
    let count = ConfusionCount { counts, pred, labels, clusters: 27 };
    time(&mut group, dev, "count", &Unplanned, count, confusion_count);
}
