//! The mutual-information loss of pairs of maps, which are f32 in every engine.

use picie::device::Dtype;
use picie::device::ops::{IicLoss, IicSpec, iic_loss, plan_iic};

use crate::util::{On, OpCase, Results, Steps, golden, signed};

fn spec(n: usize, (h, w): (usize, usize), k: usize, up: usize, t: usize) -> IicSpec {
    IicSpec { n, h, w, k, up, t, collapsed: false, lambda: 1.0 }
}

/// Softmax of normal numbers, a little peaked.
fn probabilities(seed: u64, spec: IicSpec) -> Vec<f32> {
    let mut maps: Vec<f32> =
        signed(seed, spec.maps_len()).into_iter().map(|x| (1.5 * x).exp()).collect();
    for pixel in maps.chunks_mut(spec.k) {
        let sum: f32 = pixel.iter().sum();
        pixel.iter_mut().for_each(|p| *p /= sum);
    }
    maps
}

/// The loss, and its gradient times `scale`.
fn loss(spec: IicSpec, maps: &[f32], scale: f32) -> OpCase<'_> {
    OpCase::new(format!("iic_loss of {spec:?}"), move |rig| {
        let plan = plan_iic(&mut *rig.dev, spec).unwrap();
        let (loss, dmaps) = (rig.output("loss", 1), rig.output("dmaps", spec.maps_len()));
        let a = IicLoss { loss, dmaps, maps: rig.input("maps", maps), scale };
        move |dev| iic_loss(dev, &plan, a)
    })
}

/// Correlations are sums of thousands of products in another order, on a GPU of numbers in two bf16
/// parts, which leave 3·2⁻¹⁶ of a product out: the smallest maps have too few to average that. The
/// loss is a difference of entropies of about 2·ln k.
fn agree(spec: IicSpec, maps: &[f32], scale: f32, dtype: Dtype) {
    loss(spec, maps, scale).agree(dtype, |what| if what == "loss" { 6e-6 } else { 1e-5 });
}

/// Loss and gradient of PyTorch's upsampling and convolution in f64; cases as in
/// `tests/golden/iic.py`.
#[test]
fn loss_and_gradient_are_pytorch_s() {
    let g = golden("iic");
    let weighted = |s: IicSpec| IicSpec { lambda: 1.5, ..s };
    let collapsed = |s: IicSpec| IicSpec { collapsed: true, ..s };
    for (name, spec) in [
        ("plain", spec(2, (5, 7), 3, 4, 3)),
        ("weighted", weighted(spec(2, (5, 7), 6, 4, 3))),
        ("far", spec(2, (4, 6), 3, 4, 11)),
        ("wide", weighted(spec(3, (7, 6), 5, 2, 9))),
        ("coarse", spec(3, (5, 6), 4, 1, 2)),
        ("still", spec(2, (3, 4), 3, 4, 0)),
        ("collapsed", collapsed(spec(2, (5, 7), 3, 4, 3))),
        ("collapsed_weighted", collapsed(weighted(spec(2, (6, 4), 6, 4, 5)))),
        ("lines", spec(2, (1, 2), 3, 4, 3)),
        ("clamped", weighted(spec(2, (5, 4), 5, 4, 2))),
    ] {
        let want = [("loss", "loss"), ("dmaps", "grad")]
            .map(|(what, named)| (what, g[&format!("{name}/{named}")].clone().into()));
        // Correlations in f32; a loss is a difference of entropies of about 2.
        let tol = |what: &str| if what == "loss" { 2e-6 } else { 3e-6 };
        loss(spec, &g[&format!("{name}/maps")], 1.0).cpu().close(&Results::of(want), tol);
    }
}

#[test]
fn the_gradient_is_the_loss_s_slope() {
    for on in On::all() {
        let spec = IicSpec { lambda: 1.3, ..spec(2, (6, 5), 4, 4, 6) };
        let maps = probabilities(7, spec);
        let case = loss(spec, &maps, 1.0);
        let gradient = case.run(on.rig())["dmaps"].clone();
        // The loss has 24 bits, of which a step of 1/64 of a map moves about half.
        let picks = if on == On::Cpu { 30 } else { 5 };
        let steps = Steps { picks, step: 1e-2, tol: 1e-2 };
        case.slopes(on, ("loss", &[1.0]), &[("maps", gradient)], steps);

        // The normaliser of the collapsed one counts as a constant: the slope is the gradient of
        // what keeps the sum of Q. Moving mass from one class to another of one pixel does, as
        // every pixel's classes then still sum to one.
        let spec = IicSpec { collapsed: true, ..spec };
        let gradient = loss(spec, &maps, 1.0).run(on.rig())["dmaps"].clone();
        let (step, pixel) = (2e-3, 17 * spec.k);
        let at = |step: f32| {
            let mut moved = maps.clone();
            moved[pixel] += step;
            moved[pixel + 1] -= step;
            f64::from(loss(spec, &moved, 1.0).run(on.rig())["loss"][0])
        };
        let slope = ((at(step) - at(-step)) / (2.0 * f64::from(step))) as f32;
        let scale = gradient.iter().fold(0.0f32, |m, g| m.max(g.abs()));
        let want = gradient[pixel] - gradient[pixel + 1];
        let said = format!("slope {slope}, gradient {want}, of at most {scale}");
        assert!((slope - want).abs() < 3e-3 * scale, "{said}");
    }
}

#[test]
fn the_scale_multiplies_the_gradient_alone() {
    let spec = spec(2, (4, 5), 3, 4, 4);
    let maps = probabilities(1, spec);
    let [one, eight] = [1.0, 8.0].map(|scale| loss(spec, &maps, scale).cpu());
    assert_eq!(one["loss"], eight["loss"]);
    assert_eq!(one["dmaps"].iter().map(|g| g * 8.0).collect::<Vec<_>>(), eight["dmaps"]);
}

/// Maps that say the same, class by class and pixel by pixel, share ln k; maps that say nothing
/// share nothing.
#[test]
fn the_loss_is_minus_the_mutual_information() {
    let spec = spec(3, (8, 8), 4, 4, 0);
    // Whole quadrants, so that hardly a pixel lies between two classes.
    let quadrants: Vec<f32> = (0..spec.maps_len())
        .map(|i| {
            let (pixel, class) = (i / 4 % 64, i % 4);
            f32::from(u8::from((pixel / 32) * 2 + pixel % 8 / 4 == class))
        })
        .collect();
    let got = loss(IicSpec { up: 1, ..spec }, &quadrants, 1.0).cpu();
    assert!((got["loss"][0] + 4f32.ln()).abs() < 1e-6, "{:?}", got["loss"]);
    let got = loss(spec, &vec![0.25; spec.maps_len()], 1.0).cpu();
    assert!(got["loss"].iter().chain(&got["dmaps"]).all(|v| v.abs() < 1e-7), "{:?}", got["loss"]);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let spec = spec(9, (7, 6), 5, 4, 5);
    loss(spec, &probabilities(3, spec), 1.0).same_bits_on_any_threads();
}

/// Classes below, at and above a tile of 48 and of several; images around tiles of 64; rows of
/// several segments, and more lags than a block has warps; maps without inner columns, rows or
/// both; lags cut by the map; several partial sums.
#[test]
fn loss_and_gradient_are_the_cpus() {
    for (seed, spec) in [
        spec(2, (5, 7), 3, 4, 3),
        IicSpec { lambda: 1.5, ..spec(3, (7, 5), 6, 4, 7) },
        IicSpec { collapsed: true, ..spec(3, (6, 5), 7, 4, 6) },
        spec(3, (3, 13), 47, 4, 1),
        spec(2, (4, 5), 48, 2, 1),
        spec(1, (5, 4), 49, 4, 1),
        spec(1, (3, 4), 100, 1, 1),
        spec(65, (3, 4), 4, 4, 5),
        spec(13, (4, 5), 2, 1, 3),
        spec(2, (1, 9), 5, 4, 3),
        spec(3, (2, 2), 3, 3, 5),
        spec(1, (1, 1), 4, 4, 3),
        spec(2, (3, 3), 27, 4, 0),
        spec(2, (9, 11), 1, 4, 4),
        spec(1, (14, 70), 3, 1, 13),
    ]
    .into_iter()
    .enumerate()
    {
        agree(spec, &probabilities(seed as u64, spec), 3.0, Dtype::F32);
    }
}

#[test]
fn no_engine_rounds_the_maps() {
    let spec = IicSpec { lambda: 1.5, ..spec(2, (5, 6), 5, 4, 5) };
    for (seed, dtype) in [(1, Dtype::Bf16), (2, Dtype::F16)] {
        agree(spec, &probabilities(seed, spec), 3.0, dtype);
    }
}

/// Entries and marginals below the clamp: classes that nobody has.
#[test]
fn absent_classes_are_clamped_as_on_the_cpu() {
    for collapsed in [false, true] {
        let spec = IicSpec { collapsed, lambda: 1.5, ..spec(2, (5, 6), 5, 4, 3) };
        let mut maps = probabilities(4, spec);
        for pixel in maps.chunks_mut(5) {
            pixel[0] += pixel[1] + pixel[3];
            (pixel[1], pixel[3]) = (0.0, 0.0);
        }
        agree(spec, &maps, 1.0, Dtype::F32);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let good = spec(2, (5, 7), 3, 4, 19);
    loss(good, &probabilities(1, good), 1.0).refuses_other_sizes("iic_loss", &[]);
    let mut bad = vec![
        (On::Cpu, IicSpec { t: 20, ..good }),
        (On::Cpu, IicSpec { n: 0, ..good }),
        (On::Cpu, IicSpec { k: 0, ..good }),
        (On::Cpu, IicSpec { up: 0, ..good }),
        (On::Cpu, IicSpec { lambda: f32::NAN, ..good }),
    ];
    // What a GPU cannot hold.
    if On::all().contains(&On::Cuda) {
        bad.push((On::Cuda, spec(1, (2, 2), 1300, 4, 1)));
        bad.push((On::Cuda, spec(4000, (80, 80), 100, 4, 1)));
        bad.push((On::Cuda, spec(1, (2, 2), 3, 4, 8)));
    }
    for (on, spec) in bad {
        let error = plan_iic(&mut *on.rig().dev, spec).unwrap_err().to_string();
        assert!(error.contains("IIC"), "{spec:?}: {error:?}");
    }
}
