//! What other tests run in a process of its own: with sanitizers, or with a driver that is told to
//! fail.

use cudarc::driver::{result, sys};

use super::gpu::Arg::{At, Float, Int};
use super::gpu::{Code, Gpu, code};
use crate::util::softgpu;

/// A kernel writes a range that the host forbade.
#[test]
#[ignore = "dies under AddressSanitizer, on purpose"]
fn forbidden() {
    let Some(mut gpu) = Gpu::new() else { return };
    let out = gpu.input(&[0f32; 64]);
    softgpu::forbid(out + 64, 64);
    gpu.launch("faults_add_f32", 1, 32, &[At(out), Float(1.0)]);
}

/// Vectors of eight must lie at multiples of eight: a GPU fails, a host does not mind.
#[test]
#[ignore = "dies under UBSan, on purpose"]
fn unaligned() {
    let Some(mut gpu) = Gpu::new() else { return };
    let (out, rounded, x) = (gpu.empty::<f32>(8), gpu.empty::<u16>(16), gpu.input(&[0f32; 8]));
    gpu.launch("faults_round_bf16", 1, 1, &[At(out), At(rounded + 2), At(x), Int(8)]);
}

/// Copies 512 bytes that begin so many floats behind the start of 512 bytes.
fn copy_outside(to: i32, from: i32) {
    let Some(mut gpu) = Gpu::new() else { return };
    let (out, x) = (gpu.empty::<u32>(32), gpu.input(&[0u32; 128]));
    gpu.launch("faults_copy_outside_f32", 1, 32, &[At(out), At(x), Int(to), Int(from)]);
}

#[test]
#[ignore = "dies under AddressSanitizer, on purpose"]
fn copies_to_the_outside() {
    copy_outside(4, 0);
}

#[test]
#[ignore = "dies under AddressSanitizer, on purpose"]
fn copies_from_the_outside() {
    copy_outside(0, 4);
}

/// Records nothing. Returns what the end of the capture answers, or what making it executable does.
fn record(gpu: &Gpu) -> Code {
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    // SAFETY: the stream is alive; the graph is used while it is there.
    unsafe {
        result::stream::begin_capture(gpu.stream, mode).unwrap();
        match result::stream::end_capture(gpu.stream) {
            Ok(graph) => code(result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0))),
            Err(e) => e.0,
        }
    }
}

/// Prints what the driver answers, for `simulated.rs`.
#[test]
#[ignore = "run by other tests with an environment of their own"]
fn driver() {
    if softgpu::has_gpu() || !softgpu::load() {
        return;
    }
    let mut version = 0;
    // SAFETY: the pointer is good.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().unwrap();
    println!("version {version}");
    if let Err(e) = result::init() {
        return println!("init {:?}", e.0);
    }
    println!(
        "devices {}, the third: {:?}",
        result::device::get_count().unwrap(),
        result::device::get(2).map_err(|e| e.0)
    );
    // SAFETY: device 0 is there, the context is current from here on, and `at` is used as long as
    // it lives.
    unsafe {
        result::ctx::set_current(result::primary_ctx::retain(0).unwrap()).unwrap();
        let shared = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        println!("shared {}", result::device::get_attribute(0, shared).unwrap());
        println!(
            "module {:?}",
            result::module::load_data(c"any".as_ptr().cast()).map(|_| ()).map_err(|e| e.0)
        );
        println!("memory {:?}", result::mem_get_info().unwrap());
        let codes: Vec<Code> = (0..3)
            .map(|_| result::malloc_sync(1 << 20).map_or_else(|e| e.0, |_| Code::CUDA_SUCCESS))
            .collect();
        println!("allocations {codes:?}");
    }
    if let Ok(gpu) = std::panic::catch_unwind(|| Gpu::new().unwrap()) {
        // SAFETY: what was pinned is not used, and the stream is alive.
        let codes = unsafe { [1, 2].map(|_| code(result::malloc_host(64, 0))) };
        println!("pinned {codes:?}");
        println!("graphs {:?}", [1, 2].map(|_| record(&gpu)));
    }
    if let Ok(mut gpu) = std::panic::catch_unwind(|| Gpu::new().unwrap()) {
        let at = gpu.input(&[0f32; 32]);
        let codes: Vec<Code> =
            (0..3).map(|_| gpu.launch("faults_add_f32", 1, 32, &[At(at), Float(1.0)])).collect();
        println!("launches {codes:?}");
        println!("race {:?}", gpu.launch("faults_block_race_f32", 2, 32, &[At(at)]));
    }
}

/// Prints what `benches/kit/pack` packs: the folder of the software GPU, and what is wrong with
/// this build's kernels.
#[test]
#[ignore = "asked by benches/kit/pack"]
fn kit() {
    if let Some(folder) = softgpu::folder(softgpu::Built::Plain) {
        println!("softgpu={}", folder.display());
    }
    if let Some(why) = picie::device::cuda::missing_kernels() {
        println!("missing={why}");
    }
}
