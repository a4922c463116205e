//! The head at the input's feature side, 27 clusters, a batch of two views.

use criterion::{Criterion, Throughput};
use picie::device::ops::{Classifier, Crop, HeadInput, HeadSpec, LossInput, Merge, Target};
use picie::device::{Backend, Layout, Pool};

use crate::{Place, fill, signed, time};

const K: usize = 27;

pub fn bench<B: Backend>(c: &mut Criterion, place: &Place<B>) {
    let (n, side) = (place.images, place.side / 4);
    let mut group = place.group(c, "head");
    group.throughput(Throughput::Elements(n as u64));
    for (merge, name) in [(Merge::Direct, "direct"), (Merge::Cascade, "cascade")] {
        let spec = HeadSpec { n, h: side, w: side, d: 128, k: K, merge, levels: 4, unit: true };
        let (mut dev, mut layout) = ((place.engine)(), Layout::default());
        let plan = dev.plan_head(spec).unwrap();
        let [laterals, dlaterals] = ["p", "dp"].map(|name| {
            [0, 1, 2, 3].map(|l| layout.take::<B::Act>(Pool::Acts, name, spec.lateral_len(l)))
        });
        let mut f32s = |name: &str, len| layout.take::<f32>(Pool::Acts, name, len);
        let classifiers =
            [0, 1].map(|_| Classifier { w: f32s("w", K * 128), b: f32s("b", K), k: K });
        let (weights, losses) = ([0, 1].map(|_| f32s("weights", K)), f32s("losses", 2 * n));
        let (sums, score) = (f32s("sums", K * 128), f32s("score", 1));
        let (scores, dw, db) =
            (f32s("scores", n * spec.pixels() * K), f32s("dw", K * 128), f32s("db", K));
        let labels = [0, 1].map(|_| layout.take::<u16>(Pool::State, "labels", n * spec.pixels()));
        let pred = layout.take::<u16>(Pool::State, "pred", n * 16 * spec.pixels());
        let counts = layout.take::<u32>(Pool::State, "counts", K);
        let index = layout.take::<u32>(Pool::State, "index", n);
        let crops = layout.take::<Crop>(Pool::State, "crops", n);
        dev.reserve(&layout).unwrap();
        fill(&mut dev, laterals);
        for slot in classifiers.map(|c| c.w).into_iter().chain(weights) {
            dev.write(slot, &signed(slot.len)).unwrap();
        }
        dev.write(index, &Vec::from_iter((0..n as u32).rev())).unwrap();
        // As in training: view 1 is whole, view 2 is warped.
        let window = Crop { top: 3, left: 5, side: side as u32 * 3 / 4, flip: 1 };
        dev.write(crops, &[vec![Crop::whole(side); n - n / 2], vec![window; n / 2]].concat())
            .unwrap();
        let input = HeadInput { laterals, crops: Some(crops) };
        let targets = [0, 1].map(|c| Target {
            classifier: classifiers[c],
            labels: labels[c],
            weights: weights[c],
            scale: 0.25,
        });
        let loss = LossInput { targets: &targets, index, view: n / 2 };

        group.bench_function(format!("assign, {name}"), |b| {
            time(b, &mut dev, |dev| {
                dev.head_assign(&plan, labels[0], counts, input, index, classifiers[0])
            })
        });
        group.bench_function(format!("accumulate, {name}"), |b| {
            time(b, &mut dev, |dev| {
                dev.head_accumulate(&plan, sums, counts, score, input, classifiers[0])
            })
        });
        group.bench_function(format!("loss, {name}"), |b| {
            time(b, &mut dev, |dev| dev.head_loss(&plan, losses, dlaterals, input, loss))
        });
        group.bench_function(format!("scores, {name}"), |b| {
            time(b, &mut dev, |dev| dev.head_scores(&plan, scores, input, classifiers[0]))
        });
        group.bench_function(format!("scores backward, {name}"), |b| {
            time(b, &mut dev, |dev| {
                dev.head_scores_backward(
                    &plan,
                    Some(dlaterals),
                    dw,
                    db,
                    scores,
                    input,
                    classifiers[0],
                )
            })
        });
        group.bench_function(format!("predict, {name}"), |b| {
            time(b, &mut dev, |dev| {
                dev.head_predict(&plan, pred, (4 * side, 4 * side), input, classifiers[0])
            })
        });
    }
}
