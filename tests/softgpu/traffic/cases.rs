//! The calls whose traffic is counted: every kernel at least once, at channels and clusters of the
//! network, on few and small maps that are whole tiles.

use picie::device::Dtype;
use picie::device::ops::*;

use super::head;
use crate::cuda::conv::{refuse, uses};
use crate::ops::conv::Given as Convolution;
use crate::util::{OpCase, Rig, below, signed};

/// Images of a batch.
pub const N: usize = 2;
/// Clusters: the pictures' classes. `MANY`: more than a tile of scores holds.
pub const K: usize = 27;
pub const MANY: usize = 500;
/// Channels of features.
pub const D: usize = 128;

/// Gives `run` one call after the other.
pub fn each(run: &mut dyn FnMut(OpCase)) {
    adam(run);
    confusion(run);
    convolution(run);
    head::each(run);
    iic(run);
    kmeans(run);
    norm(run);
    softmax(run);
    stem(run);
    top(run);
    view(run);
}

fn adam(run: &mut dyn FnMut(OpCase)) {
    const LEN: usize = 1 << 17;
    let blocks = |rig: &mut Rig| {
        let weights = rig.inout("weights", &signed(1, LEN));
        let [grads, m, v] = ["grads", "m", "v"].map(|name| rig.inout(name, &vec![0.1; LEN]));
        let f32s = rig.dev.dtype() == Dtype::F32;
        let compute = if f32s { weights.as_acts() } else { rig.act_output("compute", LEN) };
        ParamBlocks { weights, grads, m, v, compute }
    };
    run(OpCase::new("adam_step".into(), move |rig| {
        let (blocks, spec) = (blocks(rig), AdamSpec::new(1e-3));
        let correction = rig.input("correction", &spec.correction(1, 1.0));
        move |dev| adam_step(dev, AdamStep { blocks, spec, correction })
    }));
    run(OpCase::new("adam_sync".into(), move |rig| {
        let blocks = blocks(rig);
        move |dev| adam_sync(dev, AdamSync { blocks })
    }));
}

fn confusion(run: &mut dyn FnMut(OpCase)) {
    const LEN: usize = 1 << 16;
    for clusters in [K, MANY] {
        run(OpCase::new("confusion_count".into(), move |rig| {
            let pred: Vec<u16> = below(1, LEN, clusters).iter().map(|&v| v as u16).collect();
            let labels: Vec<u8> = below(2, LEN, K).iter().map(|&v| v as u8).collect();
            let counts = rig.adds("counts", clusters * K);
            let (pred, labels) = (rig.input("pred", &pred), rig.input("labels", &labels));
            move |dev| confusion_count(dev, ConfusionCount { counts, pred, labels, clusters })
        }));
    }
}

/// Of which only images', and what is behind and before cuDNN's, are the engine's.
fn convolution(run: &mut dyn FnMut(OpCase)) {
    let spec = ConvSpec { n: N, h: 32, w: 32, c: D, k: D, r: 1, stride: 1, pad: 0 };
    // Bias, residual, ReLU, += of both gradients; around engines that cuDNN does not have.
    for refused in ["fused,beta", "fused,beta,narrowdw"] {
        refuse(refused, 0);
        Convolution::new(spec, uses(0b11111), 0).cases().into_iter().for_each(&mut *run);
        refuse("", 0);
    }
    let spec = ConvSpec { n: N, h: 56, w: 320, c: 4, k: 64, r: 7, stride: 2, pad: 3 };
    let images = Convolution::new(spec, uses(0), 0);
    run(images.forward());
    run(images.backward_weight());
}

fn iic(run: &mut dyn FnMut(OpCase)) {
    let spec = IicSpec { n: 4, h: 16, w: 16, k: 45, up: 4, t: 4, collapsed: false, lambda: 1.0 };
    run(OpCase::new("iic_loss".into(), move |rig| {
        let plan = plan_iic(&mut *rig.dev, spec).unwrap();
        let mut maps: Vec<f32> = signed(1, spec.maps_len()).into_iter().map(f32::exp).collect();
        for pixel in maps.chunks_mut(spec.k) {
            let sum: f32 = pixel.iter().sum();
            pixel.iter_mut().for_each(|p| *p /= sum);
        }
        let a = IicLoss {
            loss: rig.output("loss", 1),
            dmaps: rig.output("dmaps", maps.len()),
            maps: rig.input("maps", &maps),
            scale: 1.0,
        };
        move |dev| iic_loss(dev, &plan, a)
    }));
}

/// A classifier of `k` clusters.
pub fn classifier(rig: &mut Rig, k: usize) -> Classifier {
    Classifier { w: rig.input("w", &signed(3, k * D)), b: rig.input("b", &signed(4, k)), k }
}

fn kmeans(run: &mut dyn FnMut(OpCase)) {
    run(OpCase::new("kmeans_classifier".into(), |rig| {
        let classifier = Classifier { w: rig.output("w", K * D), b: rig.output("b", K), k: K };
        let centroids = rig.input("centroids", &signed(1, K * D));
        let a = KMeansClassifier { classifier, centroids, metric: Metric::L2 };
        move |dev| kmeans_classifier(dev, a)
    }));
    for k in [K, MANY] {
        run(OpCase::new("kmeans_accumulate".into(), move |rig| {
            let plan = plan_kmeans(&mut *rig.dev, KMeansSpec { k, d: D }).unwrap();
            let rows = if k == K { 1 << 12 } else { 1 << 8 };
            let a = KMeansAccumulate {
                sums: rig.adds("sums", k * D),
                counts: rig.adds("counts", k),
                score: rig.adds("score", 1),
                points: rig.acts("points", &signed(2, rows * D)),
                classifier: classifier(rig, k),
            };
            move |dev| kmeans_accumulate(dev, &plan, a)
        }));
    }
    run(OpCase::new("kmeans_mean".into(), |rig| {
        let a = KMeansMean {
            centroids: rig.inout("centroids", &signed(1, K * D)),
            counts: rig.adds("counts", K),
            splits: rig.adds("splits", 1),
            sums: rig.input("sums", &signed(2, K * D)),
        };
        move |dev| kmeans_mean(dev, a)
    }));
    run(OpCase::new("kmeans_step".into(), |rig| {
        let a = KMeansStep {
            centroids: rig.inout("centroids", &signed(1, K * D)),
            totals: rig.inout("totals", &[9.0f32; K]),
            sums: rig.input("sums", &signed(2, K * D)),
            counts: rig.input("counts", &[7u32; K]),
        };
        move |dev| kmeans_step(dev, a)
    }));
}

fn norm_params(rig: &mut Rig, c: usize) -> NormParams {
    NormParams {
        gamma: rig.input("gamma", &signed(5, c)),
        beta: rig.input("beta", &signed(6, c)),
        running_mean: rig.inout("running_mean", &signed(7, c)),
        running_var: rig.inout("running_var", &vec![1.0f32; c]),
    }
}

/// The first stage's maps, and the last one's.
fn norm(run: &mut dyn FnMut(OpCase)) {
    for (side, c, with_residual) in [(40, 64, true), (40, 64, false), (10, 512, true)] {
        let spec = NormSpec { groups: 2, rows: N * side * side, c };
        run(OpCase::new("norm_forward".into(), move |rig| {
            let plan = plan_norm(&mut *rig.dev, spec).unwrap();
            let a = NormForward {
                z: rig.act_output("z", spec.len()),
                mask: with_residual.then(|| rig.output("mask", spec.mask_len())),
                saved: rig.output("saved", spec.saved_len()),
                x: rig.acts("x", &signed(1, spec.len())),
                residual: with_residual
                    .then(|| Residual::Map(rig.acts("residual", &signed(2, spec.len())))),
                relu: true,
                params: norm_params(rig, c),
            };
            move |dev| norm_forward(dev, &plan, a)
        }));
        run(OpCase::new("norm_backward".into(), move |rig| {
            let plan = plan_norm(&mut *rig.dev, spec).unwrap();
            let a = NormBackward {
                dx: rig.act_output("dx", spec.len()),
                dresidual: with_residual
                    .then(|| ResidualGrad::Map(rig.act_output("dresidual", spec.len()))),
                dgamma: rig.adds("dgamma", c),
                dbeta: rig.adds("dbeta", c),
                dz: rig.acts("dz", &signed(1, spec.len())),
                gate: if with_residual {
                    NormGate::Mask(rig.input("mask", &half(spec.mask_len())))
                } else {
                    NormGate::Beta(rig.input("beta", &signed(2, c)))
                },
                x: rig.acts("x", &signed(3, spec.len())),
                saved: rig.input("saved", &vec![1.0f32; spec.saved_len()]),
                gamma: rig.input("gamma", &signed(4, c)),
            };
            move |dev| norm_backward(dev, &plan, a)
        }));
    }
    two_norms(run);
    run(OpCase::new("norm_fold".into(), |rig| {
        let len = D * D * 9;
        let a = NormFold {
            folded: rig.act_output("folded", len),
            bias: rig.act_output("bias", D),
            w: rig.acts("w", &signed(1, len)),
            params: norm_params(rig, D),
        };
        move |dev| norm_fold(dev, a)
    }));
}

/// Bits of which half are set.
fn half(len: usize) -> Vec<u8> {
    below(2, len, 256).iter().map(|&byte| byte as u8).collect()
}

/// The backward of two norms that were added up.
fn two_norms(run: &mut dyn FnMut(OpCase)) {
    let spec = NormSpec { groups: 2, rows: N * 20 * 20, c: D };
    run(OpCase::new("norm_backward".into(), move |rig| {
        let plan = plan_norm(&mut *rig.dev, spec).unwrap();
        let mut grads = |suffix: &str| {
            rig.suffix = suffix.into();
            NormGrads {
                dx: rig.act_output("dx", spec.len()),
                dgamma: rig.adds("dgamma", spec.c),
                dbeta: rig.adds("dbeta", spec.c),
                x: rig.acts("x", &signed(3, spec.len())),
                saved: rig.input("saved", &vec![1.0f32; spec.saved_len()]),
                gamma: rig.input("gamma", &signed(4, spec.c)),
            }
        };
        let dresidual = Some(ResidualGrad::Norm(grads("#2")));
        let NormGrads { dx, dgamma, dbeta, x, saved, gamma } = grads("");
        let dz = rig.acts("dz", &signed(1, spec.len()));
        let gate = NormGate::Mask(rig.input("mask", &half(spec.mask_len())));
        let a = NormBackward { dx, dresidual, dgamma, dbeta, dz, gate, x, saved, gamma };
        move |dev| norm_backward(dev, &plan, a)
    }));
}

fn softmax(run: &mut dyn FnMut(OpCase)) {
    for (pixels, k) in [(1600, K), (256, MANY)] {
        let spec = SoftmaxSpec { n: N, pixels, k };
        run(OpCase::new("softmax_forward".into(), move |rig| {
            let plan = plan_softmax(&mut *rig.dev, spec).unwrap();
            let x = rig.inout("x", &signed(1, spec.len()));
            move |dev| softmax_forward(dev, &plan, SoftmaxForward { x })
        }));
        run(OpCase::new("softmax_backward".into(), move |rig| {
            let plan = plan_softmax(&mut *rig.dev, spec).unwrap();
            let dp = rig.inout("dp", &signed(1, spec.len()));
            let p = rig.input("p", &vec![1.0 / k as f32; spec.len()]);
            move |dev| softmax_backward(dev, &plan, SoftmaxBackward { dp, p })
        }));
        run(OpCase::new("softmax_loss".into(), move |rig| {
            let plan = plan_softmax(&mut *rig.dev, spec).unwrap();
            let labels: Vec<u16> = below(1, spec.rows(), k).iter().map(|&v| v as u16).collect();
            let a = SoftmaxLoss {
                losses: rig.output("losses", N),
                scores: rig.inout("scores", &signed(1, spec.len())),
                labels: SoftmaxLabels {
                    labels: rig.input("labels", &labels),
                    index: rig.input("index", &Vec::from_iter(0..N as u32)),
                    weights: rig.input("weights", &vec![1.0f32; k]),
                },
                scale: 1.0,
            };
            move |dev| softmax_loss(dev, &plan, a)
        }));
    }
}

fn stem(run: &mut dyn FnMut(OpCase)) {
    let spec = StemSpec { groups: 2, n: N, h: 64, w: 64, c: 64 };
    run(OpCase::new("stem_forward".into(), move |rig| {
        let plan = plan_stem(&mut *rig.dev, spec).unwrap();
        let a = StemForward {
            z: rig.act_output("z", spec.z_len()),
            maxima: Some(StemMaxima {
                argmax: rig.output("argmax", spec.z_len()),
                peak: rig.act_output("peak", spec.z_len()),
            }),
            saved: rig.output("saved", spec.saved_len()),
            x: rig.acts("x", &signed(1, spec.x_len())),
            params: norm_params(rig, spec.c),
        };
        move |dev| stem_forward(dev, &plan, a)
    }));
    run(OpCase::new("stem_infer".into(), move |rig| {
        let plan = plan_stem(&mut *rig.dev, spec).unwrap();
        let z = rig.act_output("z", spec.z_len());
        let a = StemInfer { z, x: rig.acts("x", &signed(1, spec.x_len())) };
        move |dev| stem_infer(dev, &plan, a)
    }));
    run(OpCase::new("stem_backward".into(), move |rig| {
        let plan = plan_stem(&mut *rig.dev, spec).unwrap();
        let argmax: Vec<u8> = below(1, spec.z_len(), 10).iter().map(|&v| v as u8).collect();
        let a = StemBackward {
            dx: rig.act_output("dx", spec.x_len()),
            dgamma: rig.adds("dgamma", spec.c),
            dbeta: rig.adds("dbeta", spec.c),
            dz: rig.acts("dz", &signed(1, spec.z_len())),
            maxima: StemMaxima {
                argmax: rig.input("argmax", &argmax),
                peak: rig.acts("peak", &signed(3, spec.z_len())),
            },
            x: rig.acts("x", &signed(2, spec.x_len())),
            saved: rig.input("saved", &vec![1.0f32; spec.saved_len()]),
            params: norm_params(rig, spec.c),
        };
        move |dev| stem_backward(dev, &plan, a)
    }));
}

/// Neighbors of all pixels, and of the best one of each image.
fn top(run: &mut dyn FnMut(OpCase)) {
    let pixels = 6400;
    for group in [1, pixels] {
        let spec = TopSpec { rows: N * pixels, q: 8, n: 10, group };
        run(OpCase::new("top_update".into(), move |rig| {
            let plan = plan_top(&mut *rig.dev, spec).unwrap();
            let len = spec.q * spec.n;
            let a = TopUpdate {
                best: rig.inout("best", &vec![f32::NEG_INFINITY; len]),
                places: rig.inout("places", &vec![u32::MAX; len]),
                scores: rig.input("scores", &signed(1, spec.rows * spec.q)),
                first: 0,
            };
            move |dev| top_update(dev, &plan, a)
        }));
    }
}

/// As in training: every change of colours, once on the whole image and once on a window.
fn view(run: &mut dyn FnMut(OpCase)) {
    let (stored, side) = (256, 128);
    let spec = ViewSpec { n: N, sh: stored, sw: stored, h: side, w: side, channels: 8 };
    let colours = Photo {
        brightness: 1.2,
        contrast: 0.8,
        saturation: 1.1,
        hue: 0.07,
        sigma: 0.6,
        order: 0b01_00_11_10,
        ..Photo::NONE
    };
    run(OpCase::new("view_render".into(), move |rig| {
        let plan = plan_view(&mut *rig.dev, spec).unwrap();
        let bytes = below(1, N * stored * stored * 3, 256);
        let crop = Crop { top: 20, left: 40, side: stored as u32 * 3 / 4, flip: 1 };
        let a = ViewRender {
            x: rig.act_output("x", spec.x_len()),
            kept: Some(KeptViews {
                pictures: rig.output("pictures", N * side * side * 3),
                places: rig.input("places", &Vec::from_iter(0..N as u32)),
            }),
            images: rig.input("images", &bytes.iter().map(|&v| v as u8).collect::<Vec<u8>>()),
            index: rig.input("index", &Vec::from_iter(0..N as u32)),
            photo: Some(rig.input("photo", &[colours; N])),
            crops: Some(rig.input("crops", &[Crop::whole(stored), crop])),
        };
        move |dev| view_render(dev, &plan, a)
    }));
    run(OpCase::new("view_load".into(), move |rig| {
        let whole = ViewSpec { sh: side, sw: side, channels: 4, ..spec };
        let plan = plan_view(&mut *rig.dev, whole).unwrap();
        let bytes = below(1, N * side * side * 3, 256);
        let a = ViewRender {
            x: rig.act_output("x", whole.x_len()),
            kept: None,
            images: rig.input("images", &bytes.iter().map(|&v| v as u8).collect::<Vec<u8>>()),
            index: rig.input("index", &Vec::from_iter(0..N as u32)),
            photo: None,
            crops: None,
        };
        move |dev| view_render(dev, &plan, a)
    }));
    run(OpCase::new("view_sobel".into(), move |rig| {
        let plan = plan_view(&mut *rig.dev, spec).unwrap();
        let x = rig.act_inout("x", &signed(1, spec.x_len()));
        move |dev| view_sobel(dev, &plan, ViewSobel { x })
    }));
}
