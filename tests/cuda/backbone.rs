//! A network of bottleneck blocks, forward and backward: the CPU engine's numbers.

use picie::device::cpu::Cpu;
use picie::device::cuda::{Cuda, Options};
use picie::device::ops::Merge;
use picie::device::{Dtype, Engine, Layout};
use picie::net::{Architecture, Mode, Network, Program, ProgramSpec, RESNET50};

use crate::net::{drawn, picture};
use crate::util::{close, softgpu, uniform};

/// The map of each level in training and in evaluation, and every gradient.
fn maps_and_gradients(dev: &mut dyn Engine) -> (Vec<Vec<f32>>, Vec<f32>) {
    let architecture = Architecture { levels: 2, ..Architecture::of(&RESNET50) };
    let mut layout = Layout::new(dev.dtype());
    let net = Network::plan(&mut layout, architecture);
    let merge = Merge::Direct;
    let spec = ProgramSpec { n: 4, h: 32, w: 64, groups: 2, k: 3, merge, unit: true };
    let [train, eval] = [Mode::Train, Mode::Eval]
        .map(|mode| Program::plan(dev, &mut layout, &net, spec, mode).unwrap());
    dev.reserve(&layout).unwrap();
    net.load(dev, &drawn(3, architecture)).unwrap();
    net.zero_grad(dev).unwrap();

    let x = picture(3, 1000, 4 * 32 * 64, architecture);
    dev.write_acts(train.x, &x).unwrap();
    train.forward(dev, &net).unwrap();
    let mut maps: Vec<_> = train.pyramid[..2].iter().map(|&p| dev.read_acts(p).unwrap()).collect();
    for (t, slot) in (1001..).zip(&train.dpyramid()[..2]) {
        dev.write_acts(*slot, &uniform(3, t, slot.len, -1.0, 1.0)).unwrap();
    }
    train.backward(dev, &net).unwrap();
    let gradients = dev.read(net.blocks.grads).unwrap();

    net.fold(dev).unwrap();
    dev.write_acts(eval.x, &x).unwrap();
    eval.forward(dev, &net).unwrap();
    maps.extend(eval.pyramid[..2].iter().map(|&p| dev.read_acts(p).unwrap()));
    (maps, gradients)
}

#[test]
fn bottlenecks_are_the_cpus() {
    if !softgpu::load() {
        return;
    }
    let (want, want_gradients) = maps_and_gradients(&mut Cpu::new());
    let cuda = &mut Cuda::new(Options::default(), Dtype::F32).unwrap();
    let (got, gradients) = maps_and_gradients(cuda);
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        // f32 through 24 convolutions, whose sums are in other orders.
        close(&format!("map {i}"), got, want, 1e-5);
    }
    close("gradients", &gradients, &want_gradients, 5e-5);
}
