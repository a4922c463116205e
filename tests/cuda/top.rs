use half::{bf16, f16};
use picie::device::Activation;
use picie::device::ops::TopSpec;

use crate::ops::top::{batches, refuses, search};
use crate::util::{Rig, signed};

/// The same list, whatever the element type of activations: scores are compared, never computed
/// with.
fn same<A: Activation>(spec: TopSpec, batches: &[Vec<f32>]) -> bool {
    let Some(mut rig) = Rig::cuda::<A>() else { return false };
    assert_eq!(search(&mut rig, spec, batches), search(&mut Rig::new(), spec, batches), "{spec:?}");
    true
}

/// Rows below, at and above a block's 256 and a part's 4096; one query and the most; lists of one
/// and the longest; groups below, at and above a block's rows, of which there are fewer and more
/// than a merge takes at once.
#[test]
fn the_lists_are_the_cpus() {
    for (rows, q, n, group) in [
        (1, 1, 1, 1),
        (255, 2, 3, 1),
        (256, 1, 64, 1),
        (257, 32, 7, 1),
        (4097, 2, 64, 1),
        (300, 3, 4, 20),
        (768, 2, 2, 256),
        (1200, 1, 5, 300),
        (530, 2, 64, 2),
    ] {
        let spec = TopSpec { rows, q, n, group };
        if !same::<f32>(spec, &batches(spec, 3)) {
            return;
        }
    }
}

#[test]
fn engines_of_every_type_and_scores_in_the_worst_order() {
    let spec = TopSpec { rows: 1000, q: 1, n: 20, group: 1 };
    let mut rising = signed(4, spec.rows);
    rising.sort_by(f32::total_cmp);
    if same::<bf16>(spec, std::slice::from_ref(&rising)) {
        same::<f16>(spec, &[rising]);
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    if let Some(mut rig) = Rig::cuda::<bf16>() {
        refuses(&mut rig);
    }
}
