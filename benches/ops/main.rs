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
use criterion::{BenchmarkGroup, Criterion, Throughput};
use picie::base::Result;
use picie::base::rng::{Rng, Stream};
use picie::device::cpu::Cpu;
use picie::device::cuda::{self, Cuda, Options};
use picie::device::ops::Op;
use picie::device::{Act, Dtype, Engine, Slot};

/// `len` standard-normal numbers.
fn signed(len: usize) -> Vec<f32> {
    let mut rng = Rng::new(1, Stream::Other, 0, 0);
    (0..len).map(|_| rng.normal()).collect()
}

/// Fills activations with standard-normal numbers.
fn fill(dev: &mut dyn Engine, slots: impl IntoIterator<Item = Slot<Act>>) {
    for slot in slots {
        dev.write_acts(slot, &signed(slot.len)).expect("a slot of this layout");
    }
}

/// An engine, and the sizes of a batch that keeps it busy.
struct Place {
    name: &'static str,
    engine: fn() -> Box<dyn Engine>,
    /// Images of a batch, and the side of the network's input.
    images: usize,
    side: usize,
}

impl Place {
    fn group<'a>(&self, c: &'a mut Criterion, family: &str) -> BenchmarkGroup<'a, WallTime> {
        let mut group = c.benchmark_group(format!("{family} on {}", self.name));
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(1));
        group
    }
}

/// Times `op`, the door of arguments `a`, by the engine's own clock: on a GPU, events around all
/// iterations. The bytes a second are those of the op's floor, [`Op::work`], and so are the
/// elements a second: FLOPs of the direct algorithm, whatever the engine does instead.
fn time<A: Op + Copy>(
    group: &mut BenchmarkGroup<WallTime>,
    dev: &mut dyn Engine,
    name: impl Into<String>,
    spec: &A::Spec,
    a: A,
    mut op: impl FnMut(&mut dyn Engine, A) -> Result<()>,
) {
    let work = a.work(spec);
    let (bytes, elements) = (work.bytes as u64, work.flops as u64);
    group.throughput(match elements {
        0 => Throughput::Bytes(bytes),
        _ => Throughput::ElementsAndBytes { elements, bytes },
    });
    group.bench_function(name, |b| {
        b.iter_custom(|iterations| {
            let start = dev.mark().expect("a working engine");
            for _ in 0..iterations {
                op(dev, a).expect("sizes agree");
            }
            let end = dev.mark().expect("a working engine");
            Duration::from_secs_f64(dev.seconds(&start, &end).expect("a working engine"))
        });
    });
}

fn all(c: &mut Criterion, place: &Place) {
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
    let engine = || -> Box<dyn Engine> { Box::new(Cpu::new()) };
    all(c, &Place { name: "cpu", engine, images: 16, side: 128 });
    let lacking = cuda::devices().map_or_else(|e| Some(e.to_string()), |_| cuda::missing_kernels());
    if let Some(what) = lacking {
        eprintln!("the CUDA engine is skipped: {what}");
        return;
    }
    let engine = || -> Box<dyn Engine> {
        Box::new(Cuda::new(Options::default(), Dtype::Bf16).expect("a GPU"))
    };
    all(c, &Place { name: "cuda bf16", engine, images: 256, side: 320 });
}

criterion::criterion_group!(benches, ops);
criterion::criterion_main!(benches);
