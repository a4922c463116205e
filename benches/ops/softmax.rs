//! A batch at a quarter of the input's side, as the methods that train through scores use it: few
//! classes, and many.

use criterion::Criterion;
use picie::device::ops::{
    SoftmaxBackward, SoftmaxForward, SoftmaxLabels, SoftmaxLoss, SoftmaxSpec, plan_softmax,
    softmax_backward, softmax_forward, softmax_loss,
};
use picie::device::{Layout, Pool};

use crate::{Place, signed, time};

pub fn bench(c: &mut Criterion, place: &Place) {
    let mut group = place.group(c, "softmax");
    for (n, k) in [(place.images, 27), (place.images / 16, 500)] {
        let spec = SoftmaxSpec { n, pixels: (place.side / 4).pow(2), k };
        let dev = &mut *(place.engine)();
        let mut layout = Layout::new(dev.dtype());
        let plan = plan_softmax(dev, spec).unwrap();
        let [x, dp] = ["x", "dp"].map(|name| layout.take(Pool::State, name, spec.len()));
        let losses = layout.take(Pool::State, "losses", n);
        let labels = layout.take(Pool::State, "labels", spec.rows());
        let index = layout.take(Pool::State, "index", n);
        let weights = layout.take(Pool::State, "weights", k);
        dev.reserve(&layout).unwrap();
        dev.write(x, &signed(x.len)).unwrap();
        dev.write(dp, &signed(dp.len)).unwrap();
        dev.write(labels, &Vec::from_iter((0..spec.rows()).map(|i| (i % k) as u16))).unwrap();
        dev.write(index, &Vec::from_iter(0..n as u32)).unwrap();
        dev.write(weights, &vec![1.0; k]).unwrap();

        let shape = format!("{n}×{}×{k}", spec.pixels);
        let forward = SoftmaxForward { x };
        time(&mut group, dev, format!("forward {shape}"), &spec, forward, |dev, a| {
            softmax_forward(dev, &plan, a)
        });
        let backward = SoftmaxBackward { dp, p: x };
        time(&mut group, dev, format!("backward {shape}"), &spec, backward, |dev, a| {
            softmax_backward(dev, &plan, a)
        });
        let labels = SoftmaxLabels { labels, index, weights };
        let loss = SoftmaxLoss { losses, scores: x, labels, scale: 1.0 };
        time(&mut group, dev, format!("loss {shape}"), &spec, loss, |dev, a| {
            softmax_loss(dev, &plan, a)
        });
    }
}
