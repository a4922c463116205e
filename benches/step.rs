//! One epoch's phases at the size of README's comparison: `cargo bench --bench step`.
//!
//! 64 random images stored at 256², network input 128², batches of 32, 27 clusters, picie's recipe otherwise.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use picie::base::rng::{Rng, Stream};
use picie::data::{self, Classes, ImageStore, Load};
use picie::device::Layout;
use picie::device::cpu::Cpu;
use picie::device::ops::Memory;
use picie::method::Picie;
use picie::recipe::Recipe;

const IMAGES: usize = 64;

/// Images of noise, by way of files as every data set.
fn noise(side: usize) -> ImageStore {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut rng = Rng::new(1, Stream::Other, 0, 0);
    for i in 0..IMAGES {
        let pixels = (0..side * side * 3).map(|_| rng.u32() as u8).collect();
        let image = image::RgbImage::from_raw(side as u32, side as u32, pixels).expect("three bytes a pixel");
        image.save(dir.path().join(format!("{i:03}.bmp"))).expect("space for an image");
    }
    let set = data::open(dir.path(), None, "train", Classes::All27, &|_, _| ()).expect("a folder of images");
    let load = Load { size: side, budget: u64::MAX, cache: dir.path(), strict: true, progress: &|_, _| () };
    ImageStore::load(&set, &load).expect("readable images")
}

fn step(c: &mut Criterion) {
    let recipe = Recipe { size: 128, stored: 256, batch: 32, batch_cluster: 32, init_batches: 1, ..Recipe::picie() };
    let set = noise(recipe.stored);
    let (mut dev, mut layout) = (Cpu::new(), Layout::default());
    let mut picie = Picie::plan(&mut dev, &mut layout, recipe, 1, IMAGES).expect("a plan");
    dev.reserve(&layout).expect("memory");
    picie.net.init(&mut dev, 1).expect("weights");
    let tick: &mut dyn FnMut(usize) -> picie::base::Result<()> = &mut |_| Ok(());

    let mut group = c.benchmark_group("step");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(10));
    group.throughput(Throughput::Elements(IMAGES as u64));
    group.bench_function("k-means of one view", |b| {
        b.iter(|| picie.kmeans(&mut dev, &set, 1, 0, tick).expect("a pass"))
    });
    picie.kmeans(&mut dev, &set, 1, 1, tick).expect("a pass");
    group.bench_function("labels of one view", |b| b.iter(|| picie.label(&mut dev, &set, 1, 0, tick).expect("a pass")));
    picie.label(&mut dev, &set, 1, 1, tick).expect("a pass");
    picie.prepare(&mut dev).expect("classifiers");
    let ids: Vec<u32> = (0..32).collect();
    let mut number = 0;
    group.throughput(Throughput::Elements(32));
    group.bench_function("train both views", |b| {
        b.iter(|| {
            number += 1;
            picie.step(&mut dev, &set, (&ids, None), 1, number).expect("a step")
        })
    });
    group.finish();
}

criterion_group!(benches, step);
criterion_main!(benches);
