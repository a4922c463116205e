//! When work runs: each rule of order is broken once, which an early device forgives and a late or
//! a random one does not.

use std::collections::BTreeMap;
use std::process::Command;

use cudarc::driver::{result, sys};

use super::gpu::Code;
use super::gpu::{Gpu, code};
use crate::util::softgpu;

/// What is found where 1 should be, after two ways of going about a thing: with the wait that it
/// needs, and without.
#[test]
#[ignore = "run by `each_missing_wait_is_seen_in_some_mode` with an environment of its own"]
fn orders() {
    let Some(mut gpu) = Gpu::new() else { return };
    let aside = result::stream::create(result::stream::StreamKind::NonBlocking).unwrap();
    let mark = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING).unwrap();
    let wait = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
    // SAFETY: all of this is alive until `gpu` is dropped, and the software GPU copies what is
    // queued within allocations.
    unsafe {
        let pinned =
            std::slice::from_raw_parts_mut(result::malloc_host(4, 0).unwrap().cast::<u8>(), 4);
        for waits in [true, false] {
            let how = if waits { "waited" } else { "missing" };
            let [x, y] = [gpu.input(&[0u8; 4]), gpu.input(&[0u8; 4])];
            assert_eq!(gpu.synchronize(), Code::CUDA_SUCCESS);

            // Pinned memory is written again before the copy has read it.
            pinned.fill(1);
            result::memcpy_htod_async(x, pinned, gpu.stream).unwrap();
            result::event::record(mark, gpu.stream).unwrap();
            if waits {
                result::event::synchronize(mark).unwrap();
            }
            pinned.fill(2);
            println!("pinned {how} {}", gpu.read::<u8>(x, 4)[0]);

            // Another stream reads what this one writes.
            gpu.write(x, &[0u8; 4]);
            assert_eq!(gpu.synchronize(), Code::CUDA_SUCCESS);
            result::memset_d8_async(x, 1, 4, gpu.stream).unwrap();
            result::event::record(mark, gpu.stream).unwrap();
            if waits {
                result::stream::wait_event(aside, mark, wait).unwrap();
            }
            result::memcpy_dtod_async(y, x, 4, aside).unwrap();
            result::stream::synchronize(aside).unwrap();
            println!("reader {how} {}", gpu.read::<u8>(y, 4)[0]);

            // Another stream writes what this one still reads.
            gpu.write(x, &[1u8; 4]);
            assert_eq!(gpu.synchronize(), Code::CUDA_SUCCESS);
            result::memcpy_dtod_async(y, x, 4, gpu.stream).unwrap();
            result::event::record(mark, gpu.stream).unwrap();
            if waits {
                result::stream::wait_event(aside, mark, wait).unwrap();
            }
            result::memset_d8_async(x, 2, 4, aside).unwrap();
            result::stream::synchronize(aside).unwrap();
            println!("writer {how} {}", gpu.read::<u8>(y, 4)[0]);

            // A copy in the default stream, which this one does not wait for.
            let numbers = [1u8; 4];
            gpu.write(x, &[0u8; 4]);
            assert_eq!(gpu.synchronize(), Code::CUDA_SUCCESS);
            result::memcpy_htod_sync(x, &numbers).unwrap();
            if waits {
                result::ctx::synchronize().unwrap();
            }
            println!("default {how} {}", gpu.read::<u8>(x, 4)[0]);

            // A copy to pinned memory, which goes on while the host does.
            pinned.fill(0);
            gpu.write(x, &[1u8; 4]);
            result::memcpy_dtoh_async(pinned, x, gpu.stream).unwrap();
            if waits {
                assert_eq!(gpu.synchronize(), Code::CUDA_SUCCESS);
            }
            println!("to-pinned {how} {}", std::ptr::read_volatile(pinned.as_ptr()));
            assert_eq!(gpu.synchronize(), Code::CUDA_SUCCESS);
        }
        // Pageable memory is taken at once; memory is freed behind its last use.
        let x = result::malloc_sync(4).unwrap();
        let mut numbers = vec![1u8; 4];
        result::memcpy_htod_async(x, &numbers, gpu.stream).unwrap();
        numbers.fill(2);
        println!("pageable waited {}", gpu.read::<u8>(x, 4)[0]);
        result::memset_d8_async(x, 3, 4, gpu.stream).unwrap();
        result::free_sync(x).unwrap();
        assert_eq!(gpu.synchronize(), Code::CUDA_SUCCESS);

        // Asked often enough, an event comes; its time is not known before.
        let [start, end] =
            [0; 2].map(|_| result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).unwrap());
        result::event::record(start, gpu.stream).unwrap();
        result::event::record(end, gpu.stream).unwrap();
        let early = code(result::event::elapsed(start, end));
        assert!([Code::CUDA_SUCCESS, Code::CUDA_ERROR_NOT_READY].contains(&early), "{early:?}");
        println!("elapsed missing {}", u8::from(early == Code::CUDA_SUCCESS));
        while code(result::event::query(end)) == Code::CUDA_ERROR_NOT_READY {}
        println!("elapsed waited {}", u8::from(result::event::elapsed(start, end).is_ok()));

        result::free_host(pinned.as_mut_ptr().cast()).unwrap();
        for event in [mark, start, end] {
            result::event::destroy(event).unwrap();
        }
        result::stream::destroy(aside).unwrap();
    }
}

/// What [`orders`] finds in a mode.
fn found(mode: &str) -> Option<BTreeMap<String, u8>> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "softgpu::modes::orders", "--ignored", "--nocapture"]);
    command
        .env("PICIE_SOFTGPU", softgpu::folder(softgpu::Built::Plain)?)
        .env("SOFTGPU_ASYNC", mode);
    let out = command.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{mode}: {text}{}", String::from_utf8_lossy(&out.stderr));
    let line = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        let known = name.ends_with(" waited") || name.ends_with(" missing");
        known.then(|| (name.to_string(), value.parse().unwrap()))
    };
    Some(text.lines().filter_map(line).collect())
}

#[test]
fn each_missing_wait_is_seen_in_some_mode() {
    if softgpu::has_gpu() {
        return;
    }
    let Some(early) = found("early") else { return };
    assert!(early.len() == 13 && early.values().all(|&v| v == 1), "{early:?}");
    let right = |found: &BTreeMap<String, u8>, name: &str| found[&format!("{name} missing")] == 1;
    let late = found("late").unwrap();
    let random: Vec<_> = (1..=8).map(|seed| found(&seed.to_string()).unwrap()).collect();
    for found in random.iter().chain([&late]) {
        let wrong: Vec<_> =
            found.iter().filter(|(name, v)| name.ends_with(" waited") && **v != 1).collect();
        assert!(wrong.is_empty(), "{wrong:?} though it waits");
    }
    for name in ["pinned", "reader", "writer", "default", "to-pinned", "elapsed"] {
        assert!(!right(&late, name), "{name}: a late device forgives it");
        assert!(
            random.iter().any(|found| !right(found, name)),
            "{name}: no order of eight shows it"
        );
    }
    assert_eq!(found("3"), found("3"), "a seed gives one order");
}

/// What is right is right in every mode, and what is wrong is told: the other tests of this folder,
/// and an engine's steps.
#[test]
fn other_tests_pass_in_every_mode() {
    if softgpu::has_gpu() {
        return;
    }
    // Races are looked for in the small kernels of this folder alone.
    let rules: &[&str] = &["softgpu::faults", "softgpu::results", "softgpu::rules"];
    for (mode, tests, orders) in [
        ("late", rules, "2"),
        ("4", rules, "2"),
        ("late", &["cuda::memory", "cuda::step::steps"], "1"),
        ("4", &["cuda::memory", "cuda::step::steps"], "1"),
    ] {
        let Some(folder) = softgpu::folder(softgpu::Built::Plain) else { return };
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(tests)
            .env("PICIE_SOFTGPU", folder)
            .env("SOFTGPU_ASYNC", mode)
            .env("SOFTGPU_ORDERS", orders);
        let out = command.output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && !text.contains("running 0 tests"), "{mode}: {text}");
    }
}
