//! Training steps of the whole network: the CPU engine's losses and weights, recorded or not, images resident or not.

use picie::data::{ImageStore, PictureSet};
use picie::device::cpu::Cpu;
use picie::device::cuda::{Cuda, Options};
use picie::device::{Activation, Backend, Layout};
use picie::method::{self, Batch, Losses};
use picie::recipe::Recipe;

use crate::util::{close, signed, softgpu};

const IMAGES: usize = 8;

fn recipe() -> Recipe {
    Recipe {
        size: 64,
        stored: 64,
        batch: 4,
        batch_cluster: 8,
        clusters: 3,
        init_batches: 1,
        ..Recipe::picie_released()
    }
}

struct Trained {
    losses: Vec<Losses>,
    weights: Vec<f32>,
    /// Of each view, with how often each occurs.
    labels: [(Vec<u16>, Vec<u32>); 2],
}

/// Labels from given centroids, then four steps on them, or on `labels`: the third and fourth are replayed where steps are
/// recorded. `ahead`: each step is told of the next.
fn steps<B: Backend>(dev: &mut B, labels: Option<&[(Vec<u16>, Vec<u32>); 2]>, ahead: bool) -> Trained {
    let (set, mut layout) = (PictureSet::Plain(ImageStore::noise(IMAGES, 64, 3)), Layout::default());
    let mut picie = method::plan(dev, &mut layout, &recipe(), 1, IMAGES).unwrap();
    dev.reserve(&layout).unwrap();
    picie.common_mut().load_images(dev, set.images()).unwrap();
    picie.init(dev).unwrap();
    let (common, clustering) = picie.clustering_mut().unwrap();
    let pseudo = [0, 1].map(|view| clustering.pseudo()[view][0]);
    for (view, pseudo) in pseudo.iter().enumerate() {
        dev.write(pseudo.centroids, &signed(view as u64, pseudo.centroids.len)).unwrap();
        clustering.label(common, dev, set.images(), (1, view), &mut |_| Ok(())).unwrap();
    }
    let found = pseudo.map(|p| (dev.read(p.labels).unwrap(), dev.read(p.counts).unwrap()));
    for (pseudo, (labels, counts)) in pseudo.iter().zip(labels.into_iter().flatten()) {
        dev.write(pseudo.labels, labels).unwrap();
        dev.write(pseudo.counts, counts).unwrap();
    }
    picie.begin_steps(dev, 1, true).unwrap();
    let batch = |step: u64| {
        let ids = &[[0, 1, 5, 2], [3, 7, 4, 6]][step as usize % 2];
        Batch { ids, epoch: 1, round: 0, before: step as usize - 1, step }
    };
    let next = |step| (ahead && step < 4).then(|| batch(step + 1));
    let losses = (1..=4).map(|step| picie.step(dev, &set, batch(step), next(step)).unwrap()).collect();
    Trained { losses, weights: dev.read(picie.common().net.blocks.weights).unwrap(), labels: found }
}

fn cuda<A: Activation>(no_graph: bool, like: &Trained) -> Trained {
    steps(&mut Cuda::<A>::new(Options { no_graph, ..Options::default() }).unwrap(), Some(&like.labels), !no_graph)
}

#[test]
fn steps_follow_the_cpu_s_and_recorded_ones_are_the_same_bits() {
    if !softgpu::load() {
        return;
    }
    let want = steps(&mut Cpu::new(), None, false);
    let got = cuda::<f32>(false, &want);
    for (want, got) in want.labels.iter().zip(&got.labels) {
        let differ = want.0.iter().zip(&got.0).filter(|(a, b)| a != b).count();
        // Where two centroids are equally near within f32 rounding.
        assert!(differ * 100 <= want.0.len(), "{differ} labels differ");
    }
    let flat = |t: &Trained| t.losses.iter().flat_map(|l| l.parts.iter().map(|part| part.1 as f32)).collect::<Vec<_>>();
    // The first loss is a forward's (with fewer rows than eight a group, norms at the top divide by next to nothing); the later ones have Adam's signs of small gradients in them.
    close("first losses", &flat(&got)[..2], &flat(&want)[..2], 1e-5);
    close("losses", &flat(&got), &flat(&want), 1e-2);
    close("weights", &got.weights, &want.weights, 1e-3);
    let plain = cuda::<f32>(true, &want);
    assert!(
        plain.losses == got.losses && plain.weights == got.weights,
        "a replayed step, staged ahead, is another step"
    );
}
