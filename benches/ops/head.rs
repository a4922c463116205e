//! The head at the input's feature side, 27 clusters, a batch of two views.

use criterion::Criterion;
use picie::device::ops::{
    Classifier, Crop, HeadAccumulate, HeadAssign, HeadInput, HeadLoss, HeadPredict, HeadScores,
    HeadScoresBackward, HeadSpec, Merge, Target, head_accumulate, head_assign, head_loss,
    head_predict, head_scores, head_scores_backward, plan_head,
};
use picie::device::{Layout, Pool};

use crate::{Place, fill, signed, time};

const K: usize = 27;

pub fn bench(c: &mut Criterion, place: &Place) {
    let (n, side) = (place.images, place.side / 4);
    let mut group = place.group(c, "head");
    for (merge, name) in [(Merge::Direct, "direct"), (Merge::Cascade, "cascade")] {
        let spec = HeadSpec { n, h: side, w: side, d: 128, k: K, merge, levels: 4, unit: true };
        let dev = &mut *(place.engine)();
        let mut layout = Layout::new(dev.dtype());
        let plan = plan_head(dev, spec).unwrap();
        let [laterals, dlaterals] = ["p", "dp"]
            .map(|name| [0, 1, 2, 3].map(|l| layout.acts(Pool::Acts, name, spec.lateral_len(l))));
        let mut f32s = |name: &str, len| layout.take::<f32>(Pool::Acts, name, len);
        let classifiers =
            [0, 1].map(|_| Classifier { w: f32s("w", K * 128), b: f32s("b", K), k: K });
        let (weights, losses) = ([0, 1].map(|_| f32s("weights", K)), f32s("losses", 2 * n));
        let (sums, score) = (f32s("sums", K * 128), f32s("score", 1));
        let (scores, dw, db) =
            (f32s("scores", n * spec.pixels() * K), f32s("dw", K * 128), f32s("db", K));
        let labels = [0, 1].map(|_| layout.take(Pool::State, "labels", n * spec.pixels()));
        let pred = layout.take(Pool::State, "pred", n * 16 * spec.pixels());
        let counts = layout.take(Pool::State, "counts", K);
        let index = layout.take(Pool::State, "index", n);
        let crops = layout.take(Pool::State, "crops", n);
        dev.reserve(&layout).unwrap();
        fill(dev, laterals);
        for slot in classifiers.map(|c| c.w).into_iter().chain(weights) {
            dev.write(slot, &signed(slot.len)).unwrap();
        }
        dev.write(index, &Vec::from_iter((0..n as u32).rev())).unwrap();
        // As in training: view 1 is whole, view 2 is warped.
        let window = Crop { top: 3, left: 5, side: side as u32 * 3 / 4, flip: 1 };
        dev.write(crops, &[vec![Crop::whole(side); n - n / 2], vec![window; n / 2]].concat())
            .unwrap();
        let (input, classifier) = (HeadInput { laterals, crops: Some(crops) }, classifiers[0]);
        let targets = [0, 1].map(|c| Target {
            classifier: classifiers[c],
            labels: labels[c],
            weights: weights[c],
            scale: 0.25,
        });

        let assign = HeadAssign { labels: labels[0], counts, input, index, classifier };
        time(&mut group, dev, format!("assign, {name}"), &spec, assign, |dev, a| {
            head_assign(dev, &plan, a)
        });
        let accumulate = HeadAccumulate { sums, counts, score, input, classifier };
        time(&mut group, dev, format!("accumulate, {name}"), &spec, accumulate, |dev, a| {
            head_accumulate(dev, &plan, a)
        });
        let loss = HeadLoss { losses, dlaterals, input, targets: &targets, index, view: n / 2 };
        time(&mut group, dev, format!("loss, {name}"), &spec, loss, |dev, a| {
            head_loss(dev, &plan, a)
        });
        let forward = HeadScores { scores, input, classifier };
        time(&mut group, dev, format!("scores, {name}"), &spec, forward, |dev, a| {
            head_scores(dev, &plan, a)
        });
        let dlaterals = Some(dlaterals);
        let backward = HeadScoresBackward { dlaterals, dw, db, dscores: scores, input, classifier };
        time(&mut group, dev, format!("scores backward, {name}"), &spec, backward, |dev, a| {
            head_scores_backward(dev, &plan, a)
        });
        let (height, width) = (4 * side, 4 * side);
        let predict = HeadPredict { pred, height, width, input, classifier };
        time(&mut group, dev, format!("predict, {name}"), &spec, predict, |dev, a| {
            head_predict(dev, &plan, a)
        });
    }
}
