use picie::device::ops::Confusion;

use crate::util::{Rig, below, golden};

#[test]
fn counts_are_bincounts_and_are_added() {
    let g = golden("confusion");
    let mut rig = Rig::new();
    let labels = rig.input(&g["labels"].iter().map(|&v| v as u8).collect::<Vec<_>>());
    let pred = rig.input(&g["pred"].iter().map(|&v| v as u16).collect::<Vec<_>>());
    let counts = rig.input(&[1000u32; 4 * 7]);
    rig.ready();
    rig.dev.confusion(counts, pred, labels, 7).unwrap();
    let got: Vec<f32> = rig.read(counts).iter().map(|&c| c as f32 - 1000.0).collect();
    assert_eq!(got, g["counts"]);
}

#[test]
fn pixels_of_several_pieces_are_counted_once() {
    let len = 3 * (1 << 17) + 5;
    let (y, p) = (below(1, len, 3), below(2, len, 5));
    let mut want = [0u32; 15];
    y.iter().zip(&p).for_each(|(y, p)| want[y * 5 + p] += 1);
    let mut rig = Rig::new();
    let labels = rig.input(&y.iter().map(|&v| v as u8).collect::<Vec<_>>());
    let pred = rig.input(&p.iter().map(|&v| v as u16).collect::<Vec<_>>());
    let counts = rig.zeros::<u32>(15);
    rig.ready();
    rig.dev.confusion(counts, pred, labels, 5).unwrap();
    assert_eq!(rig.read(counts), want);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let mut rig = Rig::new();
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
