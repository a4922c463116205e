//! The best rows of many. Scores are compared, never computed with: results are exact, whatever the
//! element type of activations.

use picie::device::ops::{TopSpec, TopUpdate, plan_top, top_update};
use picie::device::{Dtype, Slot};

use crate::util::{EXACT, On, OpCase, Results, Rig, below, signed};

/// What `batches` of scores leave, each (rows, q), by sorting all of them.
fn sorted(spec: TopSpec, batches: &[Vec<f32>]) -> Results {
    let TopSpec { q, n, group, .. } = spec;
    let all = batches.concat();
    let (mut best, mut places) = (Vec::new(), Vec::new());
    let order = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    for query in 0..q {
        let column: Vec<(f32, u32)> = all.iter().skip(query).step_by(q).copied().zip(0..).collect();
        let known =
            |group: &[(f32, u32)]| group.iter().copied().filter(|(s, _)| !s.is_nan()).min_by(order);
        let mut rows: Vec<(f32, u32)> = column.chunks(group).filter_map(known).collect();
        rows.sort_by(order);
        rows.resize(n.max(rows.len()), (f32::NEG_INFINITY, u32::MAX));
        best.extend(rows[..n].iter().map(|r| r.0));
        places.extend(rows[..n].iter().map(|r| r.1));
    }
    Results::of([("best", best.into()), ("places", places.into())])
}

/// A search through batches, the first row of which is place `first`.
fn search(spec: TopSpec, batches: &[Vec<f32>], first: usize) -> OpCase<'_> {
    OpCase::new(format!("top_update of {spec:?}"), move |rig| {
        let plan = plan_top(&mut *rig.dev, spec).unwrap();
        let best = rig.inout("best", &vec![f32::NEG_INFINITY; spec.q * spec.n]);
        let places = rig.inout("places", &vec![u32::MAX; spec.q * spec.n]);
        let place = |(i, batch): (usize, &Vec<f32>)| rig.input(&format!("scores#{i}"), batch);
        let batches: Vec<Slot<f32>> = batches.iter().enumerate().map(place).collect();
        move |dev| {
            batches.iter().enumerate().try_for_each(|(i, &scores)| {
                let first = first + i * spec.rows;
                top_update(dev, &plan, TopUpdate { best, places, scores, first })
            })
        }
    })
}

/// Batches of scores with many equals, some of them NaN or infinite.
fn batches(spec: TopSpec, count: usize) -> Vec<Vec<f32>> {
    let len = spec.rows * spec.q;
    let batch = |i: usize| {
        let steps = below(i as u64, len, 40);
        let mut scores: Vec<f32> = steps.into_iter().map(|s| s as f32 / 20.0 - 1.0).collect();
        scores.iter_mut().step_by(17).for_each(|s| *s = f32::NAN);
        scores.iter_mut().skip(5).step_by(97).for_each(|s| *s = f32::NEG_INFINITY);
        scores
    };
    (0..count).map(batch).collect()
}

fn spec([rows, q, n, group]: [usize; 4]) -> TopSpec {
    TopSpec { rows, q, n, group }
}

/// The worst order is the rising one.
fn rising(rows: usize) -> Vec<f32> {
    let mut scores = signed(4, rows);
    scores.sort_by(f32::total_cmp);
    scores
}

#[test]
fn the_best_are_those_of_sorting_everything() {
    for sizes in [
        [1, 1, 1, 1],
        [7, 1, 10, 1],
        [300, 3, 64, 1],
        [256, 32, 5, 1],
        [300, 3, 4, 20],
        [512, 2, 64, 64],
        [60, 5, 2, 60],
    ] {
        let (spec, batches) = (spec(sizes), batches(spec(sizes), 3));
        search(spec, &batches, 0).cpu().close(&sorted(spec, &batches), |_| EXACT);
    }
}

#[test]
fn the_order_of_scores_does_not_matter() {
    let spec = spec([1000, 1, 20, 1]);
    let rising = vec![rising(spec.rows)];
    let falling = vec![rising[0].iter().rev().copied().collect()];
    let (up, down) = (search(spec, &rising, 0).cpu(), search(spec, &falling, 0).cpu());
    assert_eq!(up["best"], down["best"]);
    let turned: Vec<u32> = down.integers("places").iter().map(|p| 999 - p).collect();
    assert_eq!(up.integers("places"), turned);
    assert!(up["best"].is_sorted_by(|a, b| a >= b));
}

/// Rows below, at and above a block's 256 and a part's 4096; one query and the most; lists of one
/// and the longest; groups below, at and above a block's rows, of which there are fewer and more
/// than a merge takes at once.
#[test]
fn the_lists_are_the_cpus() {
    for sizes in [
        [1, 1, 1, 1],
        [255, 2, 3, 1],
        [256, 1, 64, 1],
        [257, 32, 7, 1],
        [4097, 2, 64, 1],
        [300, 3, 4, 20],
        [768, 2, 2, 256],
        [1200, 1, 5, 300],
        [530, 2, 64, 2],
    ] {
        let (spec, batches) = (spec(sizes), batches(spec(sizes), 3));
        search(spec, &batches, 0).agree(Dtype::F32, |_| EXACT);
    }
}

#[test]
fn engines_of_every_type_and_scores_in_the_worst_order() {
    for dtype in [Dtype::Bf16, Dtype::F16] {
        search(spec([1000, 1, 20, 1]), &[rising(1000)], 0).agree(dtype, |_| EXACT);
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let spec = spec([8, 2, 3, 4]);
    let batches = batches(spec, 1);
    search(spec, &batches, 0).refuses_other_sizes("top_update", &[]);
    let said = search(spec, &batches, u32::MAX as usize - 7).refusal(Rig::cpu(Dtype::F32));
    assert!(said.to_string().contains("do not fit into 32 bits"), "{said}");
    for on in On::all() {
        for (bad, why) in [
            (TopSpec { n: 0, ..spec }, "without content"),
            (TopSpec { n: 65, ..spec }, "at most 64"),
            (TopSpec { q: 33, ..spec }, "with 32 queries"),
            (TopSpec { group: 3, ..spec }, "not whole groups of 3"),
        ] {
            let said = plan_top(&mut *on.rig().dev, bad).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
    }
}
