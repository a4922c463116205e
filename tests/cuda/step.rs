//! Training steps of the whole network: the CPU engine's losses and weights, recorded or not, images resident or not.

use picie::data::ImageStore;
use picie::device::cpu::Cpu;
use picie::device::cuda::{Cuda, Options};
use picie::device::{Activation, Backend, Layout};
use picie::method::{Losses, Picie};
use picie::recipe::Recipe;

use crate::util::{close, signed, softgpu};

const IMAGES: usize = 4;

fn recipe() -> Recipe {
    Recipe {
        size: 32,
        stored: 64,
        batch: 2,
        batch_cluster: 4,
        clusters: 3,
        init_batches: 1,
        ..Recipe::picie_released()
    }
}

struct Trained {
    losses: Vec<Losses>,
    weights: Vec<f32>,
    labels: Vec<u16>,
}

/// Labels from given centroids, then four steps: the third and fourth are replayed where steps are recorded.
fn steps<B: Backend>(dev: &mut B) -> Trained {
    let (recipe, set, mut layout) = (recipe(), ImageStore::noise(IMAGES, 64, 3), Layout::default());
    let mut picie = Picie::plan(dev, &mut layout, recipe, 1, IMAGES).unwrap();
    dev.reserve(&layout).unwrap();
    picie.load_images(dev, &set).unwrap();
    picie.net.init(dev, 1).unwrap();
    let tick: &mut dyn FnMut(usize) -> picie::base::Result<()> = &mut |_| Ok(());
    for view in 0..2 {
        dev.write(picie.centroids[view], &signed(view as u64, picie.centroids[view].len)).unwrap();
        picie.label(dev, &set, 1, view, tick).unwrap();
    }
    let labels = dev.read(picie.labels[0]).unwrap();
    picie.prepare(dev).unwrap();
    let losses =
        (1..=4).map(|step| picie.step(dev, &set, &[[0, 1], [3, 2]][step % 2], 1, step as u64).unwrap()).collect();
    Trained { losses, weights: dev.read(picie.net.blocks.weights).unwrap(), labels }
}

fn cuda<A: Activation>(no_graph: bool) -> Trained {
    steps(&mut Cuda::<A>::new(Options { no_graph, ..Options::default() }).unwrap())
}

#[test]
fn steps_follow_the_cpu_s_and_recorded_ones_are_the_same_bits() {
    if !softgpu::load() {
        return;
    }
    let (want, got) = (steps(&mut Cpu::new()), cuda::<f32>(false));
    let differ = want.labels.iter().zip(&got.labels).filter(|(a, b)| a != b).count();
    // Ties within f32 rounding.
    assert!(differ * 100 <= want.labels.len(), "{differ} labels differ");
    let flat = |t: &Trained| t.losses.iter().flat_map(|l| [l.within as f32, l.cross as f32]).collect::<Vec<_>>();
    // The first loss is a forward's; the later ones have Adam's signs of small gradients in them.
    close("first losses", &flat(&got)[..2], &flat(&want)[..2], 1e-4);
    close("losses", &flat(&got), &flat(&want), 1e-2);
    close("weights", &got.weights, &want.weights, 1e-3);
    let plain = cuda::<f32>(true);
    assert!(plain.losses == got.losses && plain.weights == got.weights, "a replayed step is another step");
}
