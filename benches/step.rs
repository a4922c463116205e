//! One epoch's phases at the size of the comparison in docs/results.md: `cargo bench --bench step`.
//!
//! 64 random images stored at 256², network input 128², batches of 32, 27 clusters, picie's recipe
//! otherwise.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use picie::data::{ImageStore, PictureSet};
use picie::device::cpu::Cpu;
use picie::device::{Engine, Layout};
use picie::method::{self, Batch, Training, ViewPass};
use picie::recipe::Recipe;

const IMAGES: usize = 64;
const FIRST: ViewPass = ViewPass { epoch: 1, view: 0 };

fn step(c: &mut Criterion) {
    let recipe = Recipe {
        size: 128,
        stored: 256,
        batch: 32,
        batch_cluster: 32,
        init_batches: 1,
        ..Recipe::picie()
    };
    let set = PictureSet::Plain(ImageStore::noise(IMAGES, recipe.stored, 1));
    let dev: &mut dyn Engine = &mut Cpu::new();
    let mut layout = Layout::new(dev.dtype());
    let mut picie = method::plan(dev, &mut layout, &recipe, 1, IMAGES).expect("a plan");
    picie.common_mut().place_images(dev, &mut layout).expect("room");
    dev.reserve(&layout).expect("memory");
    picie.init(dev).expect("weights");
    let tick: &mut dyn FnMut(usize) -> picie::base::Result<()> = &mut |_| Ok(());

    let mut group = c.benchmark_group("step");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(10));
    group.throughput(Throughput::Elements(IMAGES as u64));
    let (common, clustering) = picie.clustering_mut().expect("PiCIE clusters");
    group.bench_function("k-means of one view", |b| {
        b.iter(|| clustering.kmeans(common, dev, set.images(), FIRST, tick).expect("a pass"))
    });
    clustering
        .kmeans(common, dev, set.images(), ViewPass { view: 1, ..FIRST }, tick)
        .expect("a pass");
    group.bench_function("labels of one view", |b| {
        b.iter(|| clustering.label(common, dev, set.images(), FIRST, tick).expect("a pass"))
    });
    clustering
        .label(common, dev, set.images(), ViewPass { view: 1, ..FIRST }, tick)
        .expect("a pass");
    picie.begin_steps(dev, 1, true).expect("classifiers");
    let ids: Vec<u32> = (0..32).collect();
    let mut number = 0;
    group.throughput(Throughput::Elements(32));
    group.bench_function("train both views", |b| {
        b.iter(|| {
            number += 1;
            let batch = Batch { ids: &ids, epoch: 1, round: 0, before: 0, step: number, rate: 1.0 };
            picie.step(dev, &set, Training { batch, next: None }).expect("a step")
        })
    });
    group.finish();
}

criterion_group!(benches, step);
criterion_main!(benches);
