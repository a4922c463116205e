use half::{bf16, f16};
use picie::device::Activation;
use picie::device::ops::Confusion;

use crate::util::{Rig, below};

/// Adds to counts of 1000 on the GPU, and counts again here. One pixel in eight has no label.
fn case<A: Activation>(pixels: usize, classes: usize, clusters: usize, runs: usize) {
    let Some(mut rig) = Rig::cuda::<A>() else { return };
    // Each value `runs` times in a row, as in pictures.
    let stretch = |v: Vec<usize>| -> Vec<usize> { (0..pixels).map(|i| v[i / runs]).collect() };
    let draws = pixels / runs + 1;
    let unlabelled = below(3, pixels, 8);
    let labels = stretch(below(1, draws, classes));
    let labels: Vec<u8> = labels
        .iter()
        .zip(unlabelled)
        .map(|(&y, skip)| if skip == 0 { 255 } else { y as u8 })
        .collect();
    let pred: Vec<u16> = stretch(below(2, draws, clusters)).into_iter().map(|p| p as u16).collect();
    let mut want = vec![1000u32; classes * clusters];
    for (&y, &p) in labels.iter().zip(&pred).filter(|(y, _)| **y != 255) {
        want[usize::from(y) * clusters + usize::from(p)] += 1;
    }
    // Pixels behind the last do not count.
    let (pred, labels) =
        (rig.input(&[pred, vec![0; 8]].concat()), rig.input(&[labels, vec![0; 8]].concat()));
    let (pred, labels) = (pred.part(0, pixels), labels.part(0, pixels));
    let counts = rig.input(&vec![1000u32; classes * clusters]);
    rig.ready();
    rig.dev.confusion(counts, pred, labels, clusters).unwrap();
    assert_eq!(
        rig.read(counts),
        want,
        "{pixels} pixels, {classes} classes, {clusters} clusters, runs of {runs}"
    );
}

#[test]
fn pixels_below_at_and_above_a_thread_s_and_a_block_s_share() {
    for pixels in [1, 7, 8, 9, 2047, 2048, 2049, 10_001] {
        case::<f32>(pixels, 5, 7, 1);
        case::<f32>(pixels, 27, 27, 3);
    }
}

#[test]
fn the_entries_of_every_element_type() {
    case::<bf16>(3001, 5, 7, 5);
    case::<f16>(3001, 5, 7, 5);
    case::<bf16>(3001, 171, 300, 1);
    case::<f16>(3001, 171, 300, 1);
}

#[test]
fn histograms_at_the_edge_of_shared_memory() {
    // 48 KiB hold 12,288 counts. 254 is the last label, and 65,535 the last prediction.
    for (classes, clusters) in [(96, 128), (97, 127), (255, 300), (2, 1 << 16)] {
        case::<f32>(5000, classes, clusters, 2);
    }
}

#[test]
fn a_block_takes_several_shares_of_many_pixels() {
    // 528 blocks of 2048 pixels take one each, then the first of them a second.
    case::<f32>(528 * 2048 + 3000, 3, 2, 40);
}

#[test]
fn one_cell_and_no_labels() {
    case::<f32>(4099, 1, 1, 1);
    let Some(mut rig) = Rig::cuda::<f32>() else { return };
    let (pred, labels) = (rig.input(&[3u16; 100]), rig.input(&[255u8; 100]));
    let counts = rig.zeros::<u32>(8);
    rig.ready();
    rig.dev.confusion(counts, pred, labels, 4).unwrap();
    assert_eq!(rig.read(counts), [0; 8]);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let Some(mut rig) = Rig::cuda::<f32>() else { return };
    let (labels, pred) = (rig.zeros::<u8>(4), rig.zeros::<u16>(5));
    let counts = rig.zeros::<u32>(6);
    rig.ready();
    assert!(
        rig.dev
            .confusion(counts, pred, labels, 3)
            .unwrap_err()
            .to_string()
            .contains("labels has 4")
    );
    assert!(
        rig.dev
            .confusion(counts, pred.part(0, 4), labels, 4)
            .unwrap_err()
            .to_string()
            .contains("counts has 6")
    );
}
