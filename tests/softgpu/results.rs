//! Kernels that are right: sums over warps and blocks, votes, atomics, dynamic shared memory,
//! rounding, recorded work.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};

use cudarc::driver::{result, sys};

use super::gpu::Arg::{At, Float, Int};
use super::gpu::{Code, Gpu};
use crate::util::{signed, softgpu};

const OK: Code = Code::CUDA_SUCCESS;

#[test]
fn a_block_sums_with_shuffles_shared_memory_and_a_barrier() {
    let Some(mut gpu) = Gpu::new() else { return };
    let x: Vec<f32> = signed(1, 5 * 256).iter().map(|v| (v * 64.0).round()).collect();
    let (at, out) = (gpu.input(&x), gpu.empty::<f32>(5));
    assert_eq!(gpu.launch("faults_sum_bf16", 5, 256, &[At(out), At(at)]), OK);
    let want: Vec<f32> = x.chunks(256).map(|block| block.iter().sum()).collect();
    assert_eq!(gpu.read::<f32>(out, 5), want);
}

#[test]
fn shuffles_and_votes_follow_the_programming_guide() {
    let Some(mut gpu) = Gpu::new() else { return };
    let x: Vec<u32> = (0..32).map(|i| 7 * i + 1).collect();
    let (at, out) = (gpu.input(&x), gpu.empty::<u32>(320));
    assert_eq!(gpu.launch("faults_warp_f32", 1, 32, &[At(out), At(at)]), OK);
    let ballot = (0..32).filter(|&i| x[i].is_multiple_of(3)).fold(0, |bits, i| bits | 1 << i);
    for (lane, row) in gpu.read::<u32>(out, 320).chunks(10).enumerate() {
        let group = lane / 8 * 8;
        let want = [
            x[5],
            x[lane ^ 3],
            if lane + 4 < 32 { x[lane + 4] } else { x[lane] },
            if lane >= 4 { x[lane - 4] } else { x[lane] },
            ballot,
            1,
            0,
            if lane + 3 < group + 8 { x[lane + 3] } else { x[lane] },
            if lane >= group + 3 { x[lane - 3] } else { x[lane] },
            x[group + (lane + 1) % 8],
        ];
        assert_eq!(row, want, "lane {lane}");
    }
}

#[test]
fn integer_atomics_count() {
    let Some(mut gpu) = Gpu::new() else { return };
    let x: Vec<u32> = (0..1000).map(|i| i * i % 7).collect();
    let (at, out) = (gpu.input(&x), gpu.input(&[0u32; 7]));
    assert_eq!(gpu.launch("faults_count_f16", 8, 128, &[At(out), At(at), Int(1000)]), OK);
    let want: Vec<u32> = (0..7).map(|c| x.iter().filter(|&&v| v == c).count() as u32).collect();
    assert_eq!(gpu.read::<u32>(out, 7), want);
}

#[test]
fn a_launch_has_three_dimensions_and_dynamic_shared_memory() {
    let Some(mut gpu) = Gpu::new() else { return };
    // 96 KiB need leave; 20 × 3 threads leave a warp incomplete, which a barrier does not mind.
    for (threads, shared) in [((20, 3, 1), 480), ((32, 32, 1), 96 << 10)] {
        let (count, blocks) = ((threads.0 * threads.1) as usize, 3 * 2 * 2);
        let x = signed(3, 2 * count * blocks);
        let (at, out, place) =
            (gpu.input(&x), gpu.empty::<f32>(x.len()), gpu.empty::<u32>(count * blocks));
        let args = [At(out), At(place), At(at)];
        let launch =
            |gpu: &Gpu| gpu.launch_shared("faults_reverse_f32", (3, 2, 2), threads, shared, &args);
        if shared > 48 << 10 {
            assert_eq!(launch(&gpu), Code::CUDA_ERROR_INVALID_VALUE);
            let attribute =
                sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is one of a loaded module.
            unsafe {
                result::function::set_function_attribute(
                    gpu.find("faults_reverse_f32").unwrap(),
                    attribute,
                    96 << 10,
                )
            }
            .unwrap();
        }
        assert_eq!(launch(&gpu), OK);
        let want: Vec<f32> =
            x.chunks(2 * count).flat_map(|block| block.iter().rev().copied()).collect();
        assert_eq!(gpu.read::<f32>(out, x.len()), want);
        for (i, v) in gpu.read::<u32>(place, count * blocks).into_iter().enumerate() {
            let (block, thread) = ((i / count) as u32, (i % count) as u32);
            let want = (block % 3)
                | (block / 3 % 2) << 8
                | (block / 6) << 16
                | (thread % threads.0) << 20
                | (thread / threads.0) << 26;
            assert_eq!(v, want, "thread {thread} of block {block}");
        }
    }
}

#[test]
fn activations_round_to_nearest_even() {
    let Some(mut gpu) = Gpu::new() else { return };
    // Every pattern of 16 bits as an f32, what lies halfway to the next, a little less and a little
    // more; and what overflows.
    let around = |v: f32, next: f32| {
        [v, (v + next) / 2.0, ((v + next) / 2.0).next_down(), ((v + next) / 2.0).next_up()]
    };
    let bf16 = |u| half::bf16::from_bits(u).to_f32();
    let f16 = |u| half::f16::from_bits(u).to_f32();
    let mut x: Vec<f32> = Vec::new();
    for u in 0..=u16::MAX {
        x.extend(around(bf16(u), bf16(u.wrapping_add(1))));
        x.extend(around(f16(u), f16(u.wrapping_add(1))));
    }
    x.extend([65504.0, 65519.99, 65520.0, 1e-8, -1e-8, f32::MAX, f32::MIN, 2f32.powi(-25)]);
    x.extend(signed(5, 8000));
    let at = gpu.input(&x);
    let same =
        |got: f32, want: f32| got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
    let wide = |v: f32| half::bf16::from_f32(v).to_f32();
    let narrow = |v: f32| half::f16::from_f32(v).to_f32();
    type Round = fn(f32) -> f32;
    let types: [(&str, usize, Round); 3] =
        [("f32", 4, |v| v), ("bf16", 2, wide), ("f16", 2, narrow)];
    for (name, size, want) in types {
        let (out, rounded) = (gpu.empty::<f32>(x.len()), gpu.empty::<u8>(x.len() * size));
        let n = x.len() as i32;
        let args = [At(out), At(rounded), At(at), Int(n)];
        let blocks = x.len().div_ceil(512) as u32;
        assert_eq!(gpu.launch(&format!("faults_round_{name}"), blocks, 64, &args), OK);
        for (&v, got) in x.iter().zip(gpu.read::<f32>(out, x.len())) {
            assert!(same(got, want(v)), "{name}: {v:e} became {got:e}, not {:e}", want(v));
        }
    }
}

/// Random fragments, and rows and columns with NaN and infinities: each element as a plain loop
/// gives it.
#[test]
fn a_tensor_core_multiplies_matrices() {
    let Some(mut gpu) = Gpu::new() else { return };
    const COUNT: usize = 40;
    let round = |v: Vec<f32>| v.into_iter().map(half::bf16::from_f32).collect::<Vec<_>>();
    let (mut x, mut y) = (round(signed(11, COUNT * 256)), round(signed(12, COUNT * 128)));
    let mut sums = signed(13, COUNT * 128);
    // In three of the products: row 3 or column 5 of a factor, or one sum, is none any more.
    let (nan, inf) = (half::bf16::NAN, half::bf16::INFINITY);
    (x[3 * 16 + 7], y[128 + 2 * 8 + 5], sums[2 * 128 + 9]) = (nan, inf, f32::NEG_INFINITY);
    (x[3 * 256 + 4 * 16], x[3 * 256 + 4 * 16 + 1]) = (inf, -inf);
    let mut want = vec![0f32; COUNT * 128];
    for (i, want) in want.iter_mut().enumerate() {
        let (n, row, column) = (i / 128, i / 8 % 16, i % 8);
        let products = (0..16)
            .map(|k| x[n * 256 + row * 16 + k].to_f64() * y[n * 128 + k * 8 + column].to_f64());
        *want = (f64::from(sums[i]) + products.sum::<f64>()) as f32;
    }
    let bits = |v: &[half::bf16]| v.iter().map(|v| v.to_bits()).collect::<Vec<u16>>();
    let (out, x, y) = (gpu.input(&sums), gpu.input(&bits(&x)), gpu.input(&bits(&y)));
    let args = [At(out), At(x), At(y)];
    assert_eq!(gpu.launch("faults_mma_f32", COUNT as u32, 32, &args), OK);
    for (i, (got, want)) in gpu.read::<f32>(out, want.len()).into_iter().zip(want).enumerate() {
        // 17 terms of at most 1 in f32: a sum of at most 17 rounds to 2⁻²⁰, 16 times.
        let near = (got - want).abs() < 2e-5 || got == want || (got.is_nan() && want.is_nan());
        assert!(near, "element {i}: {got}, not {want}");
    }
}

#[test]
fn matrices_are_loaded_as_they_lie_and_transposed() {
    let Some(mut gpu) = Gpu::new() else { return };
    let x: Vec<u16> = (0..256).map(|i| 3 * i + 1).collect();
    let (at, out) = (gpu.input(&x), gpu.empty::<u32>(256));
    assert_eq!(gpu.launch("faults_matrix_bf16", 1, 32, &[At(out), At(at)]), OK);
    for (i, got) in gpu.read::<u32>(out, 256).into_iter().enumerate() {
        let (matrix, g, t) = (i / 32 % 4, i % 32 / 4, i % 4);
        let at = |row: usize, column: usize| u32::from(x[64 * matrix + 8 * row + column]);
        let want = match i < 128 {
            true => at(g, 2 * t) | at(g, 2 * t + 1) << 16,
            false => at(2 * t, g) | at(2 * t + 1, g) << 16,
        };
        assert_eq!(got, want, "word {i}");
    }
}

#[test]
fn copies_land_in_a_pipeline_and_are_zero_behind_the_end() {
    let Some(mut gpu) = Gpu::new() else { return };
    for (count, n) in [(1, 256), (2, 4), (7, 6 * 256 + 100), (4, 0)] {
        let x = signed(7, 256 * count);
        let (at, out) = (gpu.input(&x), gpu.empty::<f32>(x.len()));
        let args = [At(out), At(at), Int(n), Int(count as i32)];
        assert_eq!(gpu.launch("faults_pipeline_f16", 1, 64, &args), OK);
        let want: Vec<f32> =
            x.iter().enumerate().map(|(i, &v)| if i < n as usize { v } else { 0.0 }).collect();
        assert_eq!(gpu.read::<f32>(out, x.len()), want);
    }
}

#[test]
fn pairs_are_rounded_and_stored_whole() {
    let Some(mut gpu) = Gpu::new() else { return };
    let mut x: Vec<f32> = signed(8, 256).iter().map(|v| v * 300.0).collect();
    (x[0], x[3], x[4], x[5]) = (f32::NAN, f32::INFINITY, f32::MIN, 1e-42);
    let at = gpu.input(&x);
    let wide = |v: f32| half::bf16::from_f32(v).to_bits();
    let narrow = |v: f32| half::f16::from_f32(v).to_bits();
    let pair = |of: &dyn Fn(f32) -> u16, x: &[f32]| {
        // NaN has one pattern.
        let of = |v: f32| u32::from(if v.is_nan() { 0x7fff } else { of(v) });
        of(x[0]) | of(x[1]) << 16
    };
    for (name, f16) in [("faults_pack_bf16", false), ("faults_pack_f16", true)] {
        let out = gpu.empty::<u32>(1024);
        assert_eq!(gpu.launch(name, 2, 64, &[At(out), At(at)]), OK);
        for (x, got) in x.chunks(2).zip(gpu.read::<u32>(out, 1024).chunks(8)) {
            let (wide, narrow) = (pair(&wide, x), pair(&narrow, x));
            let act = if f16 { narrow } else { wide };
            assert_eq!(got, [wide, narrow, act, 0, narrow, wide, 1, 2], "{x:?}");
        }
    }
}

#[test]
fn recorded_work_runs_when_it_is_launched() {
    let Some(mut gpu) = Gpu::new() else { return };
    let out = gpu.input(&[1f32; 32]);
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    // A capture holds only what was launched before.
    assert_eq!(gpu.launch("faults_add_f32", 1, 32, &[At(out), Float(0.0)]), OK);
    // SAFETY: the stream is alive; the memory outlives the graph's last launch.
    let graph = unsafe {
        result::stream::begin_capture(gpu.stream, mode).unwrap();
        assert_eq!(gpu.launch("faults_add_f32", 1, 32, &[At(out), Float(2.0)]), OK);
        assert_eq!(gpu.launch("faults_add_f32", 1, 32, &[At(out), Float(0.5)]), OK);
        let refused = result::malloc_sync(64).unwrap_err();
        assert_eq!(refused.0, Code::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        let graph = result::stream::end_capture(gpu.stream).unwrap();
        let exec = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)).unwrap();
        result::graph::destroy(graph).unwrap();
        exec
    };
    assert_eq!(gpu.read::<f32>(out, 32), [1.0; 32], "a capture must not run");
    for round in 1..=3 {
        // SAFETY: as above.
        unsafe { result::graph::launch(graph, gpu.stream) }.unwrap();
        assert_eq!(gpu.read::<f32>(out, 32), [1.0 + 2.5 * round as f32; 32]);
    }
    // SAFETY: nobody uses the graph any more.
    unsafe { result::graph::exec_destroy(graph) }.unwrap();
}

/// Work of another library, which it hands to `softgpu_submit`, takes its turn among the kernels
/// and is dropped once.
#[test]
fn foreign_work_is_recorded_too() {
    let Some(mut gpu) = Gpu::new() else { return };
    type Callback = unsafe extern "C" fn(*mut c_void);
    type Submit = unsafe extern "C" fn(sys::CUstream, Callback, *mut c_void, Callback) -> i32;
    static DROPPED: AtomicU32 = AtomicU32::new(0);
    unsafe extern "C" fn double(at: *mut c_void) {
        // SAFETY: `at` points to the address of 32 floats of the software GPU, which are host
        // memory.
        unsafe { std::slice::from_raw_parts_mut(*at.cast::<u64>() as *mut f32, 32) }
            .iter_mut()
            .for_each(|v| *v *= 2.0);
    }
    unsafe extern "C" fn done(at: *mut c_void) {
        // SAFETY: made by Box::into_raw below, and dropped once.
        drop(unsafe { Box::from_raw(at.cast::<u64>()) });
        DROPPED.fetch_add(1, Ordering::SeqCst);
    }
    let out = gpu.input(&[1f32; 32]);
    // SAFETY: as the two functions say; the graph is destroyed before the memory.
    unsafe {
        let submit = softgpu::libcuda().unwrap().get::<Submit>(b"softgpu_submit\0").unwrap();
        let arg = || Box::into_raw(Box::new(out)).cast();
        assert_eq!(submit(gpu.stream, double, arg(), done), 0);
        assert_eq!(gpu.launch("faults_add_f32", 1, 32, &[At(out), Float(0.0)]), OK);
        assert_eq!((gpu.read::<f32>(out, 1)[0], DROPPED.load(Ordering::SeqCst)), (2.0, 1));

        result::stream::begin_capture(
            gpu.stream,
            sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED,
        )
        .unwrap();
        gpu.launch("faults_add_f32", 1, 32, &[At(out), Float(1.0)]);
        assert_eq!(submit(gpu.stream, double, arg(), done), 0);
        let graph = result::stream::end_capture(gpu.stream).unwrap();
        let exec = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)).unwrap();
        result::graph::destroy(graph).unwrap();
        result::graph::launch(exec, gpu.stream).unwrap();
        result::graph::launch(exec, gpu.stream).unwrap();
        assert_eq!((gpu.read::<f32>(out, 1)[0], DROPPED.load(Ordering::SeqCst)), (14.0, 1));
        result::graph::exec_destroy(exec).unwrap();
        assert_eq!(DROPPED.load(Ordering::SeqCst), 2);
    }
}
