//! Traces of recorded steps: each replay has times of its own.

use picie::device::cuda::{Cuda, Options};
use picie::device::{Call, Dtype, Engine, Layout, Pool, Recording, Traced};

use crate::util::softgpu;

/// A step of two copies in a layer each, replayed six times in a phase, with a trace from the third
/// on.
fn traced(options: Options) -> Option<Traced> {
    if !softgpu::load() {
        return None;
    }
    let dev: &mut dyn Engine = &mut Cuda::new(options, Dtype::F32).unwrap();
    let mut layout = Layout::new(dev.dtype());
    let [a, b, c] = ["a", "b", "c"].map(|name| layout.take::<f32>(Pool::State, name, 1 << 16));
    dev.reserve(&layout).unwrap();
    let mut recording = Recording::default();
    let mut step = |dev: &mut dyn Engine, number: f32| {
        dev.write(a, &vec![number; a.len]).unwrap();
        dev.enter("train");
        dev.enter("step");
        dev.replay(&mut recording, |dev| {
            dev.range("one", |dev| dev.copy(b, a))?;
            dev.range("two", |dev| dev.copy(c, b))
        })
        .unwrap();
        dev.leave();
        dev.leave();
        assert_eq!(dev.read(c).unwrap(), vec![number; c.len]);
    };
    (0..2).for_each(|i| step(dev, i as f32));
    dev.start_trace().unwrap();
    (2..6).for_each(|i| step(dev, i as f32));
    let traced = dev.take_trace().unwrap();
    step(dev, 9.0);
    assert_eq!(dev.take_trace().unwrap(), Traced::default(), "the trace is off");
    Some(traced)
}

fn check(traced: &Traced) {
    let path = |span: Option<usize>| {
        let (mut span, mut path) = (span, Vec::new());
        while let Some(i) = span {
            path.insert(0, traced.spans[i].name.clone());
            span = traced.spans[i].parent;
        }
        path.join("/")
    };
    let (host, ops): (Vec<Call>, Vec<Call>) =
        traced.calls.iter().copied().partition(|call| call.host);
    assert_eq!((host.len(), ops.len()), (8, 8), "{traced:?}");
    for (i, call) in ops.iter().enumerate() {
        assert_eq!(traced.ops[call.op], "copy");
        assert_eq!(path(call.span), format!("train/step/{}", ["one", "two"][i % 2]));
        assert_eq!(call.work.bytes, 2.0 * 4.0 * f64::from(1 << 16));
        assert!(call.seconds > 0.0, "{call:?}");
    }
    // Times of an earlier replay would repeat.
    assert!(ops.windows(2).all(|pair| pair[0].start + pair[0].seconds <= pair[1].start + 1e-6));
    // A range for each step, and not one for all.
    assert_eq!(traced.spans.iter().filter(|span| span.name == "step").count(), 4);
    assert!(host.iter().all(|call| traced.ops[call.op].starts_with("host ")));
}

#[test]
fn calls_in_recorded_steps_are_timed_at_each_replay() {
    let Some(recorded) = traced(Options::default()) else { return };
    check(&recorded);
    check(&traced(Options { no_graph: true, ..Options::default() }).unwrap());
}
