//! The images of a first and of a second start: `cargo bench --bench store`.
//!
//! 64 scenes stored at 640², in memory: decoded, decoded and written to the file that is kept, and
//! read from that file.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use picie::data::{self, Classes, Fit, ImageStore, Load, Square, kept, scenes};

const IMAGES: usize = 64;

fn store(c: &mut Criterion) {
    let home = tempfile::tempdir().expect("a folder");
    let drawn = home.path().join("scenes");
    scenes::write(&drawn, IMAGES, 1, 1, &|_, _| ()).expect("scenes");
    let set =
        data::open(&drawn, None, "train", Classes::default(), &|_, _| ()).expect("a data set");
    let load = |keep| {
        let load = Load {
            square: Square::new(640, Fit::Crop),
            budget: u64::MAX,
            cache: home.path(),
            keep,
            exif: true,
            strict: true,
            on_progress: &|_, _| (),
        };
        ImageStore::load(&set, &load).expect("images")
    };
    let forget = || std::fs::remove_dir_all(home.path().join(kept::FOLDER)).unwrap_or_default();

    let mut group = c.benchmark_group("store");
    group.sample_size(10).throughput(Throughput::Elements(IMAGES as u64));
    group.bench_function("decoded", |b| b.iter(|| load(None)));
    group.bench_function("decoded and kept", |b| {
        b.iter_batched(forget, |()| load(Some(0)), BatchSize::PerIteration)
    });
    assert!(load(Some(0)).kept.is_some_and(|kept| kept.reused));
    group.bench_function("from the cache", |b| b.iter(|| load(Some(0))));
    group.finish();
}

criterion_group!(benches, store);
criterion_main!(benches);
