//! How host data comes to the device, and what an engine refuses of its scratch.

use picie::base::Error;
use picie::device::cuda::{Cuda, Options};
use picie::device::ops::{NormForward, NormParams, NormSpec, norm_forward, plan_norm};
use picie::device::{Dtype, Engine, Layout, Pool};

use crate::util::softgpu;

/// Fills a slot with one value.
fn all<T: Copy>(value: T) -> impl FnOnce(&mut [T]) -> picie::base::Result<()> {
    move |out| {
        out.fill(value);
        Ok(())
    }
}

fn engine() -> Option<Box<dyn Engine>> {
    let open = || Cuda::new(Options::default(), Dtype::F32).unwrap();
    softgpu::load().then(|| Box::new(open()) as Box<dyn Engine>)
}

#[test]
fn what_is_written_to_staging_is_there_for_whatever_is_queued_next() {
    let Some(mut dev) = engine() else { return };
    let mut layout = Layout::new(Dtype::F32);
    let [a, b, c] = ["a", "b", "c"].map(|name| layout.take::<u32>(Pool::Staging, name, 20));
    let copy = layout.take::<u32>(Pool::State, "copy", 20);
    dev.reserve(&layout).unwrap();
    for round in 0..3 {
        // The third first, and twice; the middle one stays as it is after the first round.
        dev.write(c, &[7; 20]).unwrap();
        dev.write(c, &[round + 2; 20]).unwrap();
        dev.write(a, &[round; 20]).unwrap();
        if round == 0 {
            dev.fill(b, all(9)).unwrap();
        }
        let before = softgpu::copies_to_device();
        dev.copy(copy, c).unwrap();
        assert!(
            softgpu::has_gpu() || softgpu::copies_to_device() == before + 1,
            "one copy brings all that was written"
        );
        // What is written after it is queued does not change it.
        dev.write(c.part(0, 3), &[100, 101, 102]).unwrap();
        assert_eq!(dev.read(copy).unwrap(), [round + 2; 20]);
        assert_eq!(dev.read(a).unwrap(), [round; 20]);
        assert_eq!(dev.read(b).unwrap(), [9; 20]);
        assert_eq!(dev.read(c).unwrap()[..4], [100, 101, 102, round + 2]);
    }
}

#[test]
fn images_come_ahead_of_the_work_that_reads_them() {
    let Some(mut dev) = engine() else { return };
    let mut layout = Layout::new(Dtype::F32);
    let slots = [0, 1].map(|i| layout.take::<u8>(Pool::Images, i, 5000));
    let seen = [0, 1, 2, 3, 4, 5].map(|i| layout.take::<u8>(Pool::State, i, 5000));
    dev.reserve(&layout).unwrap();
    dev.fill(slots[0], all(0)).unwrap();
    for (i, &seen) in seen.iter().enumerate() {
        dev.copy(seen, slots[i % 2]).unwrap();
        let next = slots[(i + 1) % 2];
        dev.prefetch(next, all(i as u8 + 1)).unwrap();
        dev.arrive(next).unwrap();
    }
    for (i, &seen) in seen.iter().enumerate() {
        assert_eq!(dev.read(seen).unwrap(), [i as u8; 5000], "batch {i}");
    }
}

#[test]
fn a_data_set_is_loaded_piece_by_piece() {
    let Some(mut dev) = engine() else { return };
    let mut layout = Layout::new(Dtype::F32);
    let set = layout.take::<u8>(Pool::Dataset, "images", 64 * 7 + 5);
    dev.reserve(&layout).unwrap();
    let mut pieces = Vec::new();
    let loaded = dev.load_bytes(set, 64, &mut |start, out| {
        pieces.push((start, out.len()));
        out.iter_mut().enumerate().for_each(|(i, x)| *x = ((start + i) * 31 % 251) as u8);
        Ok(())
    });
    loaded.unwrap();
    assert_eq!(
        pieces.iter().map(|piece| piece.1).collect::<Vec<_>>(),
        [64, 64, 64, 64, 64, 64, 64, 5]
    );
    let want: Vec<u8> = (0..set.len).map(|i| (i * 31 % 251) as u8).collect();
    assert!(dev.read(set).unwrap() == want);
    let refused = dev.load_bytes(set, 64, &mut |start, _| match start {
        128 => Err(Error::input("the third", "stop")),
        _ => Ok(()),
    });
    assert_eq!(refused.unwrap_err().to_string(), "the third; stop");
}

/// The scratch is as large as the plans before `reserve` asked for; a larger op that is planned
/// after it must not write behind it.
#[test]
fn an_op_that_is_planned_too_late_is_refused() {
    let Some(mut dev) = engine() else { return };
    let mut layout = Layout::new(Dtype::F32);
    let (rows, c) = (1 << 12, 64);
    let [x, z] = ["x", "z"].map(|name| layout.acts(Pool::Acts, name, rows * c));
    let [gamma, beta, running_mean, running_var] =
        ["γ", "β", "mean", "variance"].map(|name| layout.take::<f32>(Pool::State, name, c));
    let saved = layout.take::<f32>(Pool::State, "saved", 2 * c);
    plan_norm(&mut *dev, NormSpec { groups: 1, rows: 8, c }).unwrap();
    dev.reserve(&layout).unwrap();
    let plan = plan_norm(&mut *dev, NormSpec { groups: 1, rows, c }).unwrap();
    let params = NormParams { gamma, beta, running_mean, running_var };
    let a = NormForward { z, mask: None, saved, x, residual: None, relu: false, params };
    let refused = norm_forward(&mut *dev, &plan, a).unwrap_err();
    assert!(
        matches!(refused, Error::Shape { op: "scratch", got, want, .. } if got < want),
        "{refused}"
    );
}
