//! Predictions from two views of each image.

use half::{bf16, f16};

use super::*;

fn predicted<B: Head>(case: &Case, mut rig: Rig<B>) -> Vec<u16> {
    let (spec, c, input) = (case.spec, case.classifier(&mut rig, 0), case.input(&mut rig));
    let pred = rig.output::<u16>(spec.n / 2 * OUT.0 * OUT.1);
    let plan = rig.dev.plan_head(spec).unwrap();
    rig.ready();
    rig.dev.head_predict(&plan, pred, OUT, input, c).unwrap();
    rig.read(pred)
}

/// One pair of views and three, classes below and above a chunk; what a view's scores take is no
/// multiple of a cache line.
fn cases<A: Activation>() {
    for (n, k) in [(2, 5), (6, 37)] {
        let spec =
            HeadSpec { n, h: 7, w: 7, d: D, k: 40, merge: Merge::Cascade, levels: 4, unit: true };
        let crops =
            (0..n).map(|i| Crop { flip: u32::from(i >= n / 2), ..Crop::whole(7) }).collect();
        let case = Case::new::<A>(spec, [k], Some(crops), n);
        let Some(rig) = Rig::cuda::<A>() else { return };
        // Interpolated scores may tie within a few roundings; the seeds have no such pixel.
        all_equal(
            &format!("{n} views, {}", A::NAME),
            &predicted(&case, rig),
            &predicted(&case, Rig::new()),
        );
    }
}

#[test]
fn scores_of_two_views_are_added_as_on_the_cpu() {
    cases::<f32>();
    cases::<bf16>();
    cases::<f16>();
}

#[test]
fn a_prediction_of_another_size_is_refused() {
    let spec =
        HeadSpec { n: 4, h: 7, w: 7, d: D, k: 5, merge: Merge::Direct, levels: 4, unit: true };
    let case = Case::new::<f32>(spec, [5], None, 4);
    let Some(mut rig) = Rig::cuda::<f32>() else { return };
    let (c, input, pred) =
        (case.classifier(&mut rig, 0), case.input(&mut rig), rig.output::<u16>(OUT.0 * OUT.1));
    let plan = rig.dev.plan_head(spec).unwrap();
    rig.ready();
    let e = rig.dev.head_predict(&plan, pred, OUT, input, c).unwrap_err().to_string();
    assert!(e.contains("head_predict: pred has 399"), "{e}");
}
