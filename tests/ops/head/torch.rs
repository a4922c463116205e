//! PyTorch's numbers.

use super::*;
use crate::util::{Golden, golden};

const SCALES: [f32; 4] = [0.25, 0.5, 1.0, 2.0];

fn integers<T: TryFrom<u32, Error: std::fmt::Debug>>(v: &[f32]) -> Vec<T> {
    v.iter().map(|&v| T::try_from(v as u32).unwrap()).collect()
}

/// The goldens: name and what is given, with as many targets.
pub fn goldens(g: &Golden) -> Vec<(&'static str, Given)> {
    let crops: Vec<Crop> =
        integers(&g["crops"]).chunks(4).map(|c| crop(c[0], c[1], c[2], c[3])).collect();
    let learned = |c: usize| {
        let of = |what: &str| &g[&format!("{what}{c}")];
        let [w, b, weights] = ["w", "b", "weights"].map(|what| of(what).clone());
        Learned { w, b, weights, labels: integers(of("labels")), scale: SCALES[c] }
    };
    // Merge, whether images are warped, targets, levels, unit features.
    [
        ("direct", Merge::Direct, false, 2, 4, true),
        ("cascade", Merge::Cascade, true, 2, 4, true),
        ("one", Merge::Direct, true, 1, 1, false),
        ("two", Merge::Direct, true, 4, 2, true),
        ("plain", Merge::Cascade, false, 1, 4, false),
    ]
    .map(|(name, merge, warped, targets, levels, unit)| {
        let lateral = |level| if level < levels { &g[&format!("p{}", level + 2)][..] } else { &[] };
        let given = Given {
            spec: HeadSpec { merge, levels, unit, ..SPEC },
            laterals: [0, 1, 2, 3].map(|level| lateral(level).to_vec()),
            crops: warped.then(|| crops.clone()),
            learned: (0..targets).map(learned).collect(),
            index: integers(&g["index"]),
            view: 2,
        };
        (name, given)
    })
    .into()
}

#[test]
fn features_labels_sums_and_predictions_are_torchs() {
    let g = golden("head");
    for (name, given) in goldens(&g) {
        let want = |what: &str| &g[&format!("{name}.{what}")];
        let features = Results::of([("features", want("features").clone().into())]);
        // Interpolation and normalisation: a handful of f32 roundings, 6e-8 each.
        given.features().cpu().close(&features, |_| 5e-7);

        // Rows that no image has stay.
        let mut labels = vec![u16::MAX; given.learned[0].labels.len()];
        for (image, &row) in given.index.iter().enumerate() {
            let own = integers::<u16>(&want("labels")[image * 35..][..35]);
            labels[row as usize * 35..][..35].copy_from_slice(&own);
        }
        let counts = added(&integers::<u32>(want("counts")));
        let assigned = [("labels", labels.into()), ("counts", counts.clone().into())];
        given.assign().cpu().close(&Results::of(assigned), |_| EXACT);

        let sums = Results::of([
            ("sums", added(want("sums")).into()),
            ("counts", counts.into()),
            ("score", added(want("score")).into()),
        ]);
        // Sums of some thirty features.
        given.accumulate(1).cpu().close(&sums, |_| 1e-6);

        let got = given.predict((11, 9), 4).cpu();
        let pred = got.integers("pred");
        let sure =
            pred.iter().zip(want("pred")).zip(want("sure")).filter(|(_, sure)| **sure == 1.0);
        assert!(sure.clone().count() * 100 >= 99 * pred.len());
        assert!(sure.clone().all(|((&p, &w), _)| p as f32 == w), "{name}: predictions");
    }
}

#[test]
fn losses_and_gradients_are_torchs() {
    let g = golden("head");
    for (name, given) in goldens(&g) {
        let want = |what: &str| g[&format!("{name}.{what}")].clone();
        let mut results = Results::of([("losses", want("losses").into())]);
        for level in 0..given.spec.levels {
            results.put(&gradient(level), want(&format!("dp{}", level + 2)).into());
        }
        // Logarithms of sums of six exponentials, each within 2e-7. Gradients are products of eight
        // terms, cancelled by the normalisation's projection.
        let tol = |what: &str| if what == "losses" { 1e-6 } else { 3e-6 };
        given.loss().cpu().close(&results, tol);
    }
}
