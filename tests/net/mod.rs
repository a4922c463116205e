//! The network: what it computes against PyTorch, its backbones, its files.

mod backbones;
mod golden;
mod weights;

use picie::device::cpu::Cpu;
use picie::device::ops::Merge;
use picie::device::{Dtype, Engine, Layout};
use picie::net::weights::{Tensor, Weights, load, write};
use picie::net::{
    Architecture, Backbone, Mode, Network, Program, ProgramSpec, RESNET18, expected, save,
};

use crate::util::{on_host, uniform};

/// Stem, layer1 and layer2 on pictures with their Sobel gradient.
const TWO: Architecture = Architecture { levels: 2, sobel: true, ..Architecture::RESNET18 };

/// Weights as the goldens draw them; running statistics 0 and 1.
pub fn drawn(seed: u64, architecture: Architecture) -> Weights {
    let mut weights = Weights::default();
    for (t, (name, shape)) in expected(architecture).into_iter().enumerate() {
        let len = shape.iter().product();
        let values = if name.ends_with("running_mean") {
            vec![0.0; len]
        } else if name.ends_with("running_var") {
            vec![1.0; len]
        } else {
            let (lo, hi) = if shape.len() == 4 {
                let bound = (6.0 / (shape[1] * shape[2] * shape[3]) as f64).sqrt() as f32;
                (-bound, bound)
            } else if name.starts_with("layer") && architecture.backbone != &RESNET18 {
                if name.ends_with(".bias") { (0.75, 1.75) } else { (0.5, 1.0) }
            } else if name.ends_with(".bias") {
                (-0.1, 0.1)
            } else {
                (0.5, 1.5)
            };
            uniform(seed, t as u32, len, lo, hi)
        };
        weights.tensors.insert(name, Tensor::from_f32(shape, values));
    }
    weights
}

/// The golden's picture number t with zeros to the channels that the network has in memory.
pub fn picture(seed: u64, t: u32, pixels: usize, architecture: Architecture) -> Vec<f32> {
    let (channels, input) = (architecture.channels(), architecture.input());
    let values = uniform(seed, t, pixels * channels, -2.0, 2.0);
    values
        .chunks(channels)
        .flat_map(|p| p.iter().copied().chain(vec![0.0; input - channels]))
        .collect()
}

/// What a file holds comes back, torch's shapes in it.
#[test]
fn weights_on_five_channels_survive_a_file() {
    let (dev, mut layout): (&mut dyn Engine, _) = (&mut Cpu::new(), Layout::new(Dtype::F32));
    let net = Network::plan(&mut layout, TWO);
    dev.reserve(&layout).unwrap();
    net.init(dev, 3).unwrap();
    let tensors = [net.saved(), net.moments()].concat();
    let mut saved = on_host(dev, &tensors);
    saved.metadata.insert("picie".into(), "{}".into());
    assert_eq!(saved.tensors["conv1.weight"].shape, [64, 5, 7, 7]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("two.safetensors");
    write(&path, &saved).unwrap();
    // Written from the device, tensor after tensor, it is the same file.
    let streamed = dir.path().join("streamed.safetensors");
    save(&streamed, dev, &tensors, &saved.metadata).unwrap();
    assert!(std::fs::read(&streamed).unwrap() == std::fs::read(&path).unwrap());

    net.init(dev, 4).unwrap();
    let (read, _) = load(&path, &expected(TWO)).unwrap();
    net.load(dev, &read).unwrap();
    let again = on_host(dev, &tensors);
    assert!(again.tensors == saved.tensors);
    // Channels 5, 6 and 7 are the memory's own: they stay zero.
    let memory = dev.read(net.blocks.weights.part(0, 64 * 49 * 8)).unwrap();
    assert!(memory.chunks(8).all(|tap| tap[5..] == [0.0; 3] && tap[..5].iter().all(|&v| v != 0.0)));
}

#[test]
fn weights_of_other_channels_are_refused_and_torchvisions_later_stages_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let write = |architecture, laterals: bool| {
        let mut weights = drawn(1, architecture);
        weights.tensors.retain(|name, _| laterals || !name.starts_with("fpn."));
        write(&path, &weights).unwrap();
    };
    write(Architecture::RESNET18, false);
    let e = load(&path, &expected(Architecture { sobel: true, ..Architecture::RESNET18 }))
        .unwrap_err()
        .to_string();
    assert!(
        e.contains("[64, 3, 7, 7]") && e.contains("leave out --sobel") && !e.contains('\n'),
        "{e}"
    );
    let (two, _) =
        load(&path, &expected(Architecture { levels: 2, ..Architecture::RESNET18 })).unwrap();
    assert!(
        two.tensors.contains_key("layer2.1.bn2.weight")
            && !two.tensors.contains_key("layer3.0.conv1.weight")
    );
    write(Architecture { sobel: true, ..Architecture::RESNET18 }, true);
    let e = load(&path, &expected(Architecture::RESNET18)).unwrap_err().to_string();
    assert!(e.contains("[64, 5, 7, 7]") && e.contains("add --sobel"), "{e}");
}

#[test]
fn a_network_without_stages_or_with_too_many_is_refused() {
    let spec =
        ProgramSpec { n: 1, h: 32, w: 32, groups: 1, k: 1, merge: Merge::Direct, unit: true };
    for levels in [0, 5] {
        let (dev, mut layout): (&mut dyn Engine, _) = (&mut Cpu::new(), Layout::new(Dtype::F32));
        let net = Network::plan(&mut layout, Architecture { levels, ..Architecture::RESNET18 });
        let e = Program::plan(dev, &mut layout, &net, spec, Mode::Train).err().unwrap().to_string();
        assert!(e.contains(&format!("{levels} levels")), "{e}");
    }
}

/// A pass that keeps nothing reuses memory where a training pass does not: the numbers are the
/// same, for every backbone, and for its first stages on pictures with their Sobel gradient.
#[test]
fn a_pass_that_keeps_nothing_computes_what_a_training_pass_does() {
    for backbone in Backbone::ALL {
        let whole = Architecture::of(backbone);
        keeping_changes_nothing(whole, Merge::Cascade);
        keeping_changes_nothing(Architecture { levels: 2, sobel: true, ..whole }, Merge::Direct);
    }
}

fn keeping_changes_nothing(architecture: Architecture, merge: Merge) {
    let (dev, mut layout): (&mut dyn Engine, _) = (&mut Cpu::new(), Layout::new(Dtype::F32));
    let net = Network::plan(&mut layout, architecture);
    let spec = ProgramSpec { n: 4, h: 32, w: 64, groups: 2, k: 3, merge, unit: true };
    let programs = [Mode::Train, Mode::Batch]
        .map(|mode| Program::plan(dev, &mut layout, &net, spec, mode).unwrap());
    dev.reserve(&layout).unwrap();
    let x = picture(3, 1, 4 * 32 * 64, architecture);
    let [train, batch] = programs.map(|program| {
        net.load(dev, &drawn(3, architecture)).unwrap();
        dev.write_acts(program.x, &x).unwrap();
        program.forward(dev, &net).unwrap();
        let maps = program.pyramid.map(|p| dev.read_acts(p).unwrap());
        (maps, net.running(dev).unwrap())
    });
    assert!(train.0.iter().flatten().all(|v| v.is_finite()));
    assert!(train == batch, "{architecture:?}");
}
