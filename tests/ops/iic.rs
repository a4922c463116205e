use picie::device::ops::{Iic, IicSpec};

use crate::util::{Rig, close, finite_difference, golden, same_bits_on_any_threads, signed};

pub fn spec(n: usize, (h, w): (usize, usize), k: usize, up: usize, t: usize) -> IicSpec {
    IicSpec { n, h, w, k, up, t, collapsed: false, lambda: 1.0 }
}

/// Softmax of normal numbers, a little peaked.
pub fn probabilities(seed: u64, spec: IicSpec) -> Vec<f32> {
    let mut maps: Vec<f32> =
        signed(seed, spec.maps()).into_iter().map(|x| (1.5 * x).exp()).collect();
    for pixel in maps.chunks_mut(spec.k) {
        let sum: f32 = pixel.iter().sum();
        pixel.iter_mut().for_each(|p| *p /= sum);
    }
    maps
}

/// The loss, and its gradient times `scale`.
pub fn run<B: Iic>(mut rig: Rig<B>, spec: IicSpec, maps: &[f32], scale: f32) -> (f32, Vec<f32>) {
    let plan = rig.dev.plan_iic(spec).unwrap();
    let (maps, dmaps, loss) = (rig.input(maps), rig.output(spec.maps()), rig.output(1));
    rig.ready();
    rig.dev.iic_loss(&plan, loss, dmaps, maps, scale).unwrap();
    (rig.read::<f32>(loss)[0], rig.read(dmaps))
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
        let (loss, grad) = run(Rig::new(), spec, &g[&format!("{name}/maps")], 1.0);
        // Correlations in f32; a loss is a difference of entropies of about 2.
        close(&format!("{name}, loss"), &[loss], &g[&format!("{name}/loss")], 2e-6);
        close(&format!("{name}, gradient"), &grad, &g[&format!("{name}/grad")], 3e-6);
    }
}

#[test]
fn the_gradient_is_the_loss_s_slope() {
    for collapsed in [false, true] {
        let spec = IicSpec { collapsed, lambda: 1.3, ..spec(2, (6, 5), 4, 4, 6) };
        let maps = probabilities(7, spec);
        let (_, grad) = run(Rig::new(), spec, &maps, 1.0);
        if collapsed {
            // Its normaliser counts as a constant: the slope is the gradient of what keeps the sum
            // of Q. Moving mass from one class to another of one pixel does, as every pixel's
            // classes then still sum to one.
            let mut moved = maps.clone();
            let (step, pixel) = (2e-3, 17 * spec.k);
            let mut loss = |step: f32| {
                moved[pixel] = maps[pixel] + step;
                moved[pixel + 1] = maps[pixel + 1] - step;
                f64::from(run(Rig::new(), spec, &moved, 1.0).0)
            };
            let slope = ((loss(step) - loss(-step)) / (2.0 * f64::from(step))) as f32;
            let scale = grad.iter().fold(0.0f32, |m, g| m.max(g.abs()));
            let want = grad[pixel] - grad[pixel + 1];
            assert!(
                (slope - want).abs() < 3e-3 * scale,
                "slope {slope}, gradient {want}, of at most {scale}"
            );
        } else {
            // The loss has 24 bits, of which a step of 1/64 of a map moves about half.
            let loss = |maps: &[f32]| f64::from(run(Rig::new(), spec, maps, 1.0).0);
            finite_difference("maps", &maps, &grad, 30, 1e-2, 1e-2, loss);
        }
    }
}

#[test]
fn the_scale_multiplies_the_gradient_alone() {
    let spec = spec(2, (4, 5), 3, 4, 4);
    let maps = probabilities(1, spec);
    let (one, eight) = (run(Rig::new(), spec, &maps, 1.0), run(Rig::new(), spec, &maps, 8.0));
    assert_eq!(one.0, eight.0);
    assert_eq!(one.1.iter().map(|g| g * 8.0).collect::<Vec<_>>(), eight.1);
}

/// Maps that say the same, class by class and pixel by pixel, share ln k; maps that say nothing
/// share nothing.
#[test]
fn the_loss_is_minus_the_mutual_information() {
    let spec = spec(3, (8, 8), 4, 4, 0);
    // Whole quadrants, so that hardly a pixel lies between two classes.
    let quadrants: Vec<f32> = (0..spec.maps())
        .map(|i| {
            let (pixel, class) = (i / 4 % 64, i % 4);
            f32::from(u8::from((pixel / 32) * 2 + pixel % 8 / 4 == class))
        })
        .collect();
    let (loss, _) = run(Rig::new(), IicSpec { up: 1, ..spec }, &quadrants, 1.0);
    assert!((loss + 4f32.ln()).abs() < 1e-6, "{loss}");
    let (loss, grad) = run(Rig::new(), spec, &vec![0.25; spec.maps()], 1.0);
    assert!(loss.abs() < 1e-7 && grad.iter().all(|g| g.abs() < 1e-7), "{loss}");
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let spec = spec(9, (7, 6), 5, 4, 5);
    let maps = probabilities(3, spec);
    same_bits_on_any_threads("iic_loss", || {
        let (loss, mut grad) = run(Rig::new(), spec, &maps, 1.0);
        grad.push(loss);
        grad
    });
}

#[test]
fn what_cannot_be_is_refused() {
    let mut rig = Rig::new();
    let good = spec(2, (5, 7), 3, 4, 19);
    assert!(rig.dev.plan_iic(good).is_ok());
    let bad = [
        IicSpec { t: 20, ..good },
        IicSpec { n: 0, ..good },
        IicSpec { k: 0, ..good },
        IicSpec { up: 0, ..good },
        IicSpec { lambda: f32::NAN, ..good },
    ];
    for spec in bad {
        let error = rig.dev.plan_iic(spec).err().map(|e| e.to_string());
        assert!(error.as_deref().is_some_and(|e| e.contains("IIC")), "{spec:?}: {error:?}");
    }
    let plan = rig.dev.plan_iic(good).unwrap();
    let (maps, dmaps, loss) = (rig.input(&[0.0f32; 5]), rig.output(good.maps()), rig.output(1));
    rig.ready();
    let error = rig.dev.iic_loss(&plan, loss, dmaps, maps, 1.0).unwrap_err().to_string();
    assert!(error.contains("iic_loss") && error.contains("maps"), "{error}");
}
