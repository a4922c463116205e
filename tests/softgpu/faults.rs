//! Kernels that are wrong: each fault is said, with what and where, and is an error of all later
//! calls.

use cudarc::driver::result;

use super::gpu::Arg::{At, Float, Int};
use super::gpu::{Arg, Code, Gpu, code, said};

/// Launches a kernel that must fail, with a complaint that has `part` in it: later calls are told,
/// until the context ends.
#[track_caller]
fn fails(gpu: Gpu, kernel: &str, (grid, block): (u32, u32), args: &[Arg], part: &str) {
    assert_eq!(gpu.launch(kernel, grid, block, args), Code::CUDA_SUCCESS);
    assert_eq!(gpu.synchronize(), Code::CUDA_ERROR_LAUNCH_FAILED, "{kernel} passed");
    let said = said();
    assert!(said.starts_with(&format!("{kernel}: ")) && said.contains(part), "{said}");
    for _ in 0..2 {
        assert_eq!(gpu.synchronize(), Code::CUDA_ERROR_LAUNCH_FAILED, "a fault stays");
    }
    // SAFETY: nobody uses the memory.
    assert_eq!(code(unsafe { result::malloc_sync(64) }), Code::CUDA_ERROR_LAUNCH_FAILED);
    assert_eq!(gpu.launch("faults_pass_f32", 2, 64, &[]), Code::CUDA_ERROR_LAUNCH_FAILED);
    drop(gpu);
    // The fibres that failed go on to do right, in another context.
    let gpu = Gpu::new().unwrap();
    assert_eq!(gpu.launch("faults_pass_f32", 2, 64, &[]), Code::CUDA_SUCCESS);
    assert_eq!(gpu.synchronize(), Code::CUDA_SUCCESS);
}

/// `faults.cu:<line>`, where the kernel's source has `text` for the n-th time.
fn line(kernel: &str, text: &str, n: usize) -> String {
    let lines: Vec<&str> = include_str!("faults.cu").lines().collect();
    let start = lines.iter().position(|l| l.starts_with(&format!("KERNEL({kernel},"))).unwrap();
    let (at, _) =
        lines.iter().enumerate().skip(start).filter(|(_, l)| l.contains(text)).nth(n).unwrap();
    format!("tests/softgpu/faults.cu:{}", at + 1)
}

#[test]
fn a_write_outside_of_an_allocation() {
    for (off, part) in [
        (100, "written 0 bytes behind the end of"),
        (107, "written 28 bytes behind"),
        (-1, "written 1 bytes before the start of"),
    ] {
        let Some(mut gpu) = Gpu::new() else { return };
        let out = gpu.empty::<f32>(100);
        fails(gpu, "faults_global_f32", (1, 32), &[At(out), Int(off)], part);
    }
}

#[test]
fn a_write_outside_of_a_shared_array() {
    for off in [32, 60, -1] {
        let Some(mut gpu) = Gpu::new() else { return };
        let out = gpu.empty::<f32>(32);
        let part = format!(
            "written outside of the shared array of 128 bytes at {}",
            line("faults_shared", "SHARED", 0)
        );
        fails(gpu, "faults_shared_f32", (1, 32), &[At(out), Int(off)], &part);
    }
    let mut gpu = Gpu::new().unwrap();
    let out = gpu.empty::<f32>(32);
    assert_eq!(gpu.launch("faults_shared_f32", 1, 32, &[At(out), Int(31)]), Code::CUDA_SUCCESS);
    assert_eq!(gpu.synchronize(), Code::CUDA_SUCCESS);
}

#[test]
fn races_and_a_missing_barrier() {
    for (kernel, grid, block) in [
        ("faults_race_f32", 1, 64),
        ("faults_no_barrier_bf16", 1, 64),
        ("faults_block_race_f16", 2, 32),
    ] {
        let Some(mut gpu) = Gpu::new() else { return };
        let out = gpu.empty::<f32>(64);
        fails(
            gpu,
            kernel,
            (grid, block),
            &[At(out)],
            "result depends on the order of threads: race or missing barrier",
        );
    }
    let mut gpu = Gpu::new().unwrap();
    let out = gpu.empty::<f32>(64);
    assert_eq!(gpu.launch("faults_block_race_f16", 1, 32, &[At(out)]), Code::CUDA_SUCCESS);
    assert_eq!(gpu.synchronize(), Code::CUDA_SUCCESS);
}

#[test]
fn diverging_barriers() {
    for (kernel, places) in
        [("faults_half_barrier", 1), ("faults_one_warp_barrier", 1), ("faults_two_barriers", 2)]
    {
        let Some(mut gpu) = Gpu::new() else { return };
        let out = gpu.empty::<f32>(64);
        let part = format!("diverging barrier at {} (", line(kernel, "__syncthreads", 0));
        fails(gpu, &format!("{kernel}_f32"), (1, 64), &[At(out)], &part);
        let other = if places == 2 { line(kernel, "__syncthreads", 1) } else { "has ended".into() };
        assert!(said().contains(&other), "{}", said());
    }
}

#[test]
fn incomplete_warp_operations() {
    let half = format!("incomplete warp operation at {} (", line("faults_half_warp", "__shfl", 0));
    let mask =
        format!("warp operation with a partial mask at {}", line("faults_mask", "__shfl", 0));
    for (kernel, part) in [("faults_half_warp_f32", half), ("faults_mask_f32", mask)] {
        let Some(mut gpu) = Gpu::new() else { return };
        let out = gpu.empty::<f32>(32);
        fails(gpu, kernel, (1, 32), &[At(out)], &part);
    }
    let Some(mut gpu) = Gpu::new() else { return };
    let (x, out) = (gpu.empty::<u32>(32), gpu.empty::<u32>(320));
    fails(gpu, "faults_warp_f32", (1, 20), &[At(out), At(x)], "no multiple of 32");
}

#[test]
fn incomplete_tensor_operations() {
    for (kernel, text, count) in
        [("faults_half_mma", "mma(d", 1), ("faults_half_matrix", "load_matrix", 2)]
    {
        let Some(mut gpu) = Gpu::new() else { return };
        let out = gpu.empty::<f32>(32);
        let part = format!("incomplete warp operation at {} (", line(kernel, text, 0));
        fails(gpu, &format!("{kernel}_bf16"), (1, 32), &[At(out)], &part);
        let other = if count == 2 { line(kernel, text, 1) } else { "has ended".into() };
        assert!(said().contains(&other), "{}", said());
    }
}

/// Other, before, sync and behind, as `faults_copy` takes them.
#[test]
fn copies_that_are_read_too_early() {
    let x: Vec<u32> = (0..256).collect();
    let new = |how: [i32; 4]| {
        let mut gpu = Gpu::new()?;
        let (at, out) = (gpu.input(&x), gpu.empty::<u32>(256));
        let [other, before, sync, behind] = how.map(Int);
        Some((gpu, out, [At(out), At(at), other, before, sync, behind]))
    };
    for (how, want) in [
        ([63, 1, 1, 0], x.chunks(4).rev().flatten().copied().collect()),
        ([0, 1, 0, 0], x.clone()),
        // Without a wait: poison, which as a float of any size is NaN.
        ([0, 0, 0, 1], vec![u32::MAX; 256]),
    ] {
        let Some((gpu, out, args)) = new(how) else { return };
        assert_eq!(gpu.launch("faults_copy_f32", 1, 64, &args), Code::CUDA_SUCCESS);
        assert_eq!(gpu.read::<u32>(out, 256), want, "{how:?}");
    }
    let race = "race or missing barrier";
    let never = format!(
        "an asynchronous copy that is never waited for at {}",
        line("faults_copy", "copy16", 0)
    );
    for (how, part) in [
        ([63, 0, 1, 1], race),
        // Each thread waits for its own, and reads another's.
        ([63, 1, 0, 0], race),
        ([1, 1, 0, 0], race),
        ([0, 0, 0, 0], &never),
    ] {
        let Some((gpu, _, args)) = new(how) else { return };
        fails(gpu, "faults_copy_f32", (1, 64), &args, part);
    }
}

#[test]
fn rows_of_matrices_are_aligned_and_stored_before() {
    let Some(mut gpu) = Gpu::new() else { return };
    let out = gpu.empty::<u32>(32);
    let part = format!("not aligned to 16 at {}", line("faults_matrix_row", "load_matrix", 0));
    fails(gpu, "faults_matrix_row_f16", (1, 32), &[At(out)], &part);
    let mut gpu = Gpu::new().unwrap();
    let out = gpu.empty::<u32>(32);
    fails(gpu, "faults_matrix_early_f16", (1, 32), &[At(out)], "race or missing barrier");
}

#[test]
fn copies_are_aligned_and_stay_inside() {
    let copy = |kernel| line(kernel, "copy16", 0);
    let unaligned = format!("not aligned to 16 at {}", copy("faults_copy_unaligned"));
    for (to, from) in [(1, 0), (0, 2)] {
        let Some(mut gpu) = Gpu::new() else { return };
        let at = gpu.empty::<u32>(256);
        let args = [At(at), Int(to), Int(from)];
        fails(gpu, "faults_copy_unaligned_f32", (1, 32), &args, &unaligned);
    }
    let Some(mut gpu) = Gpu::new() else { return };
    let (at, out) = (gpu.empty::<u32>(128), gpu.empty::<u32>(128));
    let part = format!("must be shared memory is not at {}", copy("faults_copy_away"));
    fails(gpu, "faults_copy_away_f32", (1, 32), &[At(out), At(at)], &part);
    let mut gpu = Gpu::new().unwrap();
    let (at, out) = (gpu.input(&[0u32; 128]), gpu.empty::<u32>(32));
    let part = format!(
        "written outside of the shared array of 512 bytes at {}",
        line("faults_copy_outside", "SHARED", 0)
    );
    let args = [At(out), At(at), Int(16), Int(0)];
    fails(gpu, "faults_copy_outside_f32", (1, 32), &args, &part);
}

#[test]
fn memory_is_not_zero_at_first() {
    let Some(mut gpu) = Gpu::new() else { return };
    let out = gpu.empty::<u32>(32);
    assert_eq!(gpu.read::<u32>(out, 32), [u32::MAX; 32]);
    let out = gpu.input(&[0u32; 32]);
    assert_eq!(gpu.launch("faults_uninitialised_f32", 1, 32, &[At(out)]), Code::CUDA_SUCCESS);
    assert_eq!(gpu.read::<u32>(out, 32), [u32::MAX; 32], "shared memory");
}

#[test]
fn what_a_driver_refuses() {
    let Some(mut gpu) = Gpu::new() else { return };
    let out = gpu.empty::<f32>(32);
    let add = |gpu: &Gpu, grid, block, at| {
        gpu.launch("faults_add_f32", grid, block, &[At(at), Float(1.0)])
    };
    assert_eq!(
        add(&gpu, 1, 64, out),
        Code::CUDA_ERROR_INVALID_VALUE,
        "more threads than __launch_bounds__"
    );
    assert_eq!(add(&gpu, 0, 32, out), Code::CUDA_ERROR_INVALID_VALUE, "no blocks");
    assert_eq!(gpu.find("faults_add_f64").unwrap_err(), Code::CUDA_ERROR_NOT_FOUND);
    let past = |at, bytes: usize| {
        // SAFETY: the software GPU looks at the range before it copies.
        unsafe { cudarc::driver::result::memcpy_htod_sync(at, &vec![0u8; bytes]) }.map_err(|e| e.0)
    };
    assert_eq!(past(out, 128), Ok(()));
    assert_eq!(past(out, 129), Err(Code::CUDA_ERROR_INVALID_VALUE));
    assert_eq!(past(out + 64, 65), Err(Code::CUDA_ERROR_INVALID_VALUE));
    // SAFETY: as above, and nothing else frees `other`.
    unsafe {
        assert!(cudarc::driver::result::malloc_sync(1 << 50).is_err());
        let other = cudarc::driver::result::malloc_sync(64).unwrap();
        assert!(cudarc::driver::result::free_sync(other + 4).is_err());
        assert!(cudarc::driver::result::free_sync(other).is_ok());
        assert!(cudarc::driver::result::free_sync(other).is_err(), "freed twice");
    }
    assert_eq!(add(&gpu, 1, 32, 4096), Code::CUDA_SUCCESS);
    assert_eq!(gpu.synchronize(), Code::CUDA_ERROR_ILLEGAL_ADDRESS);
    assert!(said().contains("parameter 0 is 0x1000, which is no device memory"), "{}", said());
}
