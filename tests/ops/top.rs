use picie::device::Slot;
use picie::device::cpu::Cpu;
use picie::device::ops::{Top, TopSpec};

use crate::util::{Rig, below, signed};

/// What `batches` of scores leave, each (rows, q), by sorting all of them.
fn sorted(spec: TopSpec, batches: &[Vec<f32>]) -> (Vec<f32>, Vec<u32>) {
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
    (best, places)
}

/// What an engine leaves of the same.
pub fn search<B: Top>(
    rig: &mut Rig<B>,
    spec: TopSpec,
    batches: &[Vec<f32>],
) -> (Vec<f32>, Vec<u32>) {
    let plan = rig.dev.plan_top(spec).unwrap();
    let best = rig.input(&vec![f32::NEG_INFINITY; spec.q * spec.n]);
    let places = rig.output::<u32>(spec.q * spec.n);
    let scores: Vec<Slot<f32>> = batches.iter().map(|batch| rig.input(batch)).collect();
    rig.ready();
    for (i, scores) in scores.into_iter().enumerate() {
        rig.dev.top_update(&plan, best, places, scores, i * spec.rows).unwrap();
    }
    (rig.read(best), rig.read(places))
}

/// Batches of scores with many equals, some of them NaN or infinite.
pub fn batches(spec: TopSpec, count: usize) -> Vec<Vec<f32>> {
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

#[test]
fn the_best_are_those_of_sorting_everything() {
    for (rows, q, n, group) in [
        (1, 1, 1, 1),
        (7, 1, 10, 1),
        (300, 3, 64, 1),
        (256, 32, 5, 1),
        (300, 3, 4, 20),
        (512, 2, 64, 64),
        (60, 5, 2, 60),
    ] {
        let spec = TopSpec { rows, q, n, group };
        let batches = batches(spec, 3);
        assert_eq!(search(&mut Rig::new(), spec, &batches), sorted(spec, &batches), "{spec:?}");
    }
}

#[test]
fn the_order_of_scores_does_not_matter() {
    let spec = TopSpec { rows: 1000, q: 1, n: 20, group: 1 };
    let mut rising = signed(4, spec.rows);
    rising.sort_by(f32::total_cmp);
    let falling: Vec<f32> = rising.iter().rev().copied().collect();
    let (up, down) =
        (search(&mut Rig::new(), spec, &[rising]), search(&mut Rig::new(), spec, &[falling]));
    assert_eq!(up.0, down.0);
    assert_eq!(up.1, down.1.iter().map(|p| 999 - p).collect::<Vec<_>>());
    assert!(up.0.is_sorted_by(|a, b| a >= b));
}

/// Also the CUDA engine's door.
pub fn refuses<B: Top>(rig: &mut Rig<B>) {
    let spec = TopSpec { rows: 8, q: 2, n: 3, group: 4 };
    for (bad, why) in [
        (TopSpec { n: 0, ..spec }, "without content"),
        (TopSpec { n: 65, ..spec }, "at most 64"),
        (TopSpec { q: 33, ..spec }, "with 32 queries"),
        (TopSpec { group: 3, ..spec }, "not whole groups of 3"),
    ] {
        let e = rig.dev.plan_top(bad).err().unwrap().to_string();
        assert!(e.contains(why), "{e}");
    }
    let plan = rig.dev.plan_top(spec).unwrap();
    let (best, scores) = (rig.zeros::<f32>(6), rig.zeros::<f32>(16));
    let (places, short) = (rig.zeros::<u32>(6), rig.zeros::<u32>(5));
    rig.ready();
    let mut fails = |best, places, scores, first, why: &str| {
        let e = rig.dev.top_update(&plan, best, places, scores, first).unwrap_err().to_string();
        assert!(e.contains(why), "{e}");
    };
    fails(best, short, scores, 0, "top_update: places has 5");
    fails(best, places, best, 0, "top_update: scores has 6");
    fails(scores, places, scores, 0, "top_update: best has 16");
    fails(best, places, scores, u32::MAX as usize - 7, "do not fit into 32 bits");
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    refuses::<Cpu>(&mut Rig::new());
}
