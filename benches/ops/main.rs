//! One file an op family: `cargo bench --bench ops [-- conv|norm|…]`.

mod adam;
mod confusion;
mod conv;
mod head;
mod kmeans;
mod norm;
mod stem;
mod view;

use std::time::Duration;

use picie::base::rng::{Rng, Stream};

/// A batch that two cores can hold and that keeps both busy.
const IMAGES: usize = 16;
const WARM_UP: Duration = Duration::from_millis(300);
const MEASURE: Duration = Duration::from_secs(1);

/// `len` standard-normal numbers.
fn signed(len: usize) -> Vec<f32> {
    let mut rng = Rng::new(1, Stream::Other, 0, 0);
    (0..len).map(|_| rng.normal()).collect()
}

criterion::criterion_group!(
    ops,
    conv::bench,
    norm::bench,
    stem::bench,
    view::bench,
    head::bench,
    kmeans::bench,
    adam::bench,
    confusion::bench
);
criterion::criterion_main!(ops);
