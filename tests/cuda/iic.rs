//! Maps are f32 in every engine.

use half::{bf16, f16};
use picie::device::Activation;
use picie::device::ops::{Iic, IicSpec};

use crate::ops::iic::{probabilities, run, spec};
use crate::util::{Rig, close};

fn case<A: Activation>(seed: u64, spec: IicSpec) {
    let Some(rig) = Rig::cuda::<A>() else { return };
    let maps = probabilities(seed, spec);
    let (got, want) = (run(rig, spec, &maps, 3.0), run(Rig::new(), spec, &maps, 3.0));
    let name = format!("{} {spec:?}", A::NAME);
    // Correlations are sums of thousands of f32 in another order; the loss is a difference of
    // entropies of about 2·ln k.
    close(&format!("{name}: loss"), &[got.0], &[want.0], 4e-6);
    close(&format!("{name}: gradient"), &got.1, &want.1, 1e-5);
}

/// Classes below, at and above a tile of 48 and of several; rows of pixels and images around tiles
/// of 64; maps without inner columns, rows or both; lags cut by the map; several partial sums.
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
    ]
    .into_iter()
    .enumerate()
    {
        case::<f32>(seed as u64, spec);
    }
}

#[test]
fn no_engine_rounds_the_maps() {
    let spec = IicSpec { lambda: 1.5, ..spec(2, (5, 6), 5, 4, 5) };
    case::<bf16>(1, spec);
    case::<f16>(2, spec);
}

/// Entries and marginals below the clamp: classes that nobody has.
#[test]
fn absent_classes_are_clamped_as_on_the_cpu() {
    for collapsed in [false, true] {
        let Some(rig) = Rig::cuda::<f32>() else { return };
        let spec = IicSpec { collapsed, lambda: 1.5, ..spec(2, (5, 6), 5, 4, 3) };
        let mut maps = probabilities(4, spec);
        for pixel in maps.chunks_mut(5) {
            pixel[0] += pixel[1] + pixel[3];
            (pixel[1], pixel[3]) = (0.0, 0.0);
        }
        let (got, want) = (run(rig, spec, &maps, 1.0), run(Rig::new(), spec, &maps, 1.0));
        close("loss", &[got.0], &[want.0], 4e-6);
        close("gradient", &got.1, &want.1, 1e-5);
    }
}

#[test]
fn what_a_gpu_cannot_hold_is_refused() {
    let Some(mut rig) = Rig::cuda::<f32>() else { return };
    for bad in
        [spec(1, (2, 2), 1300, 4, 1), spec(4000, (80, 80), 100, 4, 1), spec(1, (2, 2), 3, 4, 8)]
    {
        let error = rig.dev.plan_iic(bad).err().map(|e| e.to_string());
        assert!(error.as_deref().is_some_and(|e| e.contains("IIC")), "{bad:?}: {error:?}");
    }
}
