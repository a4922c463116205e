//! One file an op family: `cargo bench --bench ops [-- conv|norm|…]`, on the CPU engine and on the
//! GPU where there is one.

mod adam;
mod confusion;
mod conv;
mod head;
mod iic;
mod kmeans;
mod norm;
mod softmax;
mod stem;
mod top;
mod view;

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{Bencher, BenchmarkGroup, Criterion};
use half::bf16;
use picie::base::rng::{Rng, Stream};
use picie::device::cpu::Cpu;
use picie::device::cuda::{self, Cuda, Options};
use picie::device::{Activation, Backend, Slot};

/// `len` standard-normal numbers.
fn signed(len: usize) -> Vec<f32> {
    let mut rng = Rng::new(1, Stream::Other, 0, 0);
    (0..len).map(|_| rng.normal()).collect()
}

/// An engine, and a batch that keeps it busy.
struct Place<B> {
    name: &'static str,
    engine: fn() -> B,
    /// Images of a batch, and the side of the network's input.
    images: usize,
    side: usize,
}

impl<B: Backend> Place<B> {
    fn group<'a>(&self, c: &'a mut Criterion, family: &str) -> BenchmarkGroup<'a, WallTime> {
        let mut group = c.benchmark_group(format!("{family} on {}", self.name));
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(1));
        group
    }
}

/// Fills activations with standard-normal numbers.
fn fill<B: Backend>(dev: &mut B, slots: impl IntoIterator<Item = Slot<B::Act>>) {
    for slot in slots {
        let numbers: Vec<B::Act> = signed(slot.len).into_iter().map(B::Act::round).collect();
        dev.write(slot, &numbers).expect("a slot of this layout");
    }
}

/// Times `op` by the engine's own clock: on a GPU, events around all iterations.
fn time<B: Backend>(
    b: &mut Bencher,
    dev: &mut B,
    mut op: impl FnMut(&mut B) -> picie::base::Result<()>,
) {
    b.iter_custom(|iterations| {
        let start = dev.mark().expect("a working engine");
        for _ in 0..iterations {
            op(dev).expect("sizes agree");
        }
        let end = dev.mark().expect("a working engine");
        Duration::from_secs_f64(dev.seconds(start, end).expect("a working engine"))
    });
}

fn all<B: Backend>(c: &mut Criterion, place: &Place<B>) {
    view::bench(c, place);
    conv::bench(c, place);
    norm::bench(c, place);
    stem::bench(c, place);
    head::bench(c, place);
    softmax::bench(c, place);
    kmeans::bench(c, place);
    iic::bench(c, place);
    adam::bench(c, place);
    confusion::bench(c, place);
    top::bench(c, place);
}

fn ops(c: &mut Criterion) {
    all(c, &Place { name: "cpu", engine: Cpu::new, images: 16, side: 128 });
    let lacking = cuda::devices().map_or_else(|e| Some(e.to_string()), |_| cuda::missing_kernels());
    if let Some(what) = lacking {
        eprintln!("the CUDA engine is skipped: {what}");
        return;
    }
    let engine = || Cuda::<bf16>::new(Options::default()).expect("a GPU");
    all(c, &Place { name: "cuda bf16", engine, images: 256, side: 320 });
}

criterion::criterion_group!(benches, ops);
criterion::criterion_main!(benches);
