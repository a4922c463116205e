//! Borders that follow edges, and inputs that are cut into tiles, by a network that has learned.

use std::sync::OnceLock;

use picie::eval::{Confusion, Scores, hungarian};

use super::{label_map, photo};
use crate::cli::{Place, holds};

/// Whether a pixel has another label than one beside it, within two pixels of each of (h, w).
fn borders(labels: &[u8], w: usize) -> [Vec<bool>; 2] {
    let own: Vec<bool> = (0..labels.len())
        .map(|at| {
            let left = !at.is_multiple_of(w) && labels[at - 1] != labels[at];
            left || (at >= w && labels[at - w] != labels[at])
        })
        .collect();
    let near = |at: usize| {
        let (x, y, h) = ((at % w) as i64, (at / w) as i64, (labels.len() / w) as i64);
        (-2..=2).any(|j| {
            (-2..=2).any(|i| {
                let (x, y) = (x + i, y + j);
                (0..w as i64).contains(&x)
                    && (0..h).contains(&y)
                    && own[(y * w as i64 + x) as usize]
            })
        })
    };
    let wide = (0..labels.len()).map(near).collect();
    [own, wide]
}

/// The F score, in percent, of the borders that lie within two pixels of the other's.
fn boundary_f(got: &[u8], want: &[u8], w: usize) -> f64 {
    let ([got, near_got], [want, near_want]) = (borders(got, w), borders(want, w));
    let part = |own: &[bool], near: &[bool]| {
        let all = own.iter().filter(|own| **own).count();
        own.iter().zip(near).filter(|(own, near)| **own && **near).count() as f64 / all as f64
    };
    let (precision, recall) = (part(&got, &near_want), part(&want, &near_got));
    200.0 * precision * recall / (precision + recall)
}

/// A place with drawn scenes, and a run that was trained on them.
fn learned() -> &'static Place {
    static LEARNED: OnceLock<Place> = OnceLock::new();
    LEARNED.get_or_init(|| {
        let place = Place::new();
        place.picie("scenes scenes --train 48 --val 16").succeeds();
        place.picie("train --data scenes --recipe demo --epochs 1 --run run").succeeds();
        place
    })
}

#[test]
fn refined_labels_are_better_on_labels() {
    let place = learned();
    let scores = |refine: &str| {
        let words = format!("segment --checkpoint run/checkpoint.safetensors --out {refine}");
        place.picie(&format!("{words} --refine={refine} scenes/images/val2017")).succeeds();
        let (mut confusion, mut f) = (Confusion::new(256, 256), 0.0);
        for n in 1..=16 {
            let got = label_map(&place.join(format!("{refine}/{n:012}-labels.png")));
            let truth = place.join(format!("scenes/annotations/val2017/{n:012}.png"));
            let truth = picie::data::decode::label(&truth).unwrap().ids;
            confusion.add(&truth, &got.1).unwrap();
            f += boundary_f(&got.1, &truth, got.0.0 as usize) / 16.0;
        }
        let scores = Scores::new(&confusion, &hungarian(&confusion), &[]).unwrap();
        (scores.miou_present, f)
    };
    let (plain, refined) = (scores("off"), scores("on"));
    println!("mIoU and boundary F: {plain:?}, refined {refined:?}");
    assert!(refined.0 > plain.0 + 1.0 && refined.1 > plain.1 + 10.0, "{plain:?}, {refined:?}");
}

#[test]
fn an_input_in_tiles_has_the_labels_of_the_whole_but_for_what_a_tile_does_not_see() {
    let place = learned();
    let labels = |out: &str, words: &str| {
        let words =
            format!("--refine=off --out {out} {words} scenes/images/val2017/000000000001.jpg");
        let segment = "segment --checkpoint run/checkpoint.safetensors --size 384";
        place.picie(&format!("{segment} {words}")).succeeds();
        label_map(&place.join(format!("{out}/000000000001-labels.png"))).1
    };
    let (whole, fits) = (labels("whole", ""), labels("fits", "--tile 384"));
    let tiles = labels("tiles", "--tile 256");
    assert!(whole == fits && whole != tiles);
    // 98.7 % where it was tried; a tile that lies 32 pixels beside its place leaves 80 %.
    let same = whole.iter().zip(&tiles).filter(|(whole, tiles)| whole == tiles).count();
    assert!(same * 100 >= 95 * whole.len(), "{same} of {}", whole.len());
}

#[test]
fn switches_and_tiles_that_are_none_are_refused() {
    let place = Place::new();
    photo(40, 30).save(place.join("a.png")).unwrap();
    let refused = |words: &str| {
        let ran = place.picie(&format!("segment --checkpoint x --out y a.png {words}"));
        assert_eq!(ran.code, Some(2));
        ran.err
    };
    holds(&refused("--refine=maybe"), &["possible values: on, off"]);
    for tile in ["32", "100", "x"] {
        holds(&refused(&format!("--tile {tile}")), &["use a multiple of 32, from 64 on"]);
    }
}
