//! Calls that a driver refuses, one test for each kind: handles and contexts that have ended, first
//! uses in a capture, memory, events.

use cudarc::driver::{result, sys};
use picie::device::cuda::{Cuda, Options};
use picie::device::{Dtype, Engine, Layout, Pool};

use super::gpu::Arg::{At, Float};
use super::gpu::{Code, Gpu, code, leaks, said};
use crate::util::softgpu;

const OK: Code = Code::CUDA_SUCCESS;
const THREAD_LOCAL: sys::CUstreamCaptureMode =
    sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;

fn event(flags: sys::CUevent_flags) -> sys::CUevent {
    result::event::create(flags).unwrap()
}

fn timed() -> sys::CUevent {
    event(sys::CUevent_flags::CU_EVENT_DEFAULT)
}

#[test]
fn a_handle_ends_when_it_is_destroyed() {
    let Some(mut gpu) = Gpu::new() else { return };
    let (at, mark) = (gpu.empty::<f32>(32), timed());
    // SAFETY: the software GPU knows what was destroyed.
    unsafe {
        result::event::destroy(mark).unwrap();
        assert_eq!(code(result::event::record(mark, gpu.stream)), Code::CUDA_ERROR_INVALID_HANDLE);
        assert_eq!(said(), "cuEventRecord: a destroyed event");
        assert_eq!(code(result::event::destroy(mark)), Code::CUDA_ERROR_INVALID_HANDLE);
        let other = result::stream::create(result::stream::StreamKind::NonBlocking).unwrap();
        result::stream::destroy(other).unwrap();
        assert_eq!(code(result::memset_d8_async(at, 0, 4, other)), Code::CUDA_ERROR_INVALID_HANDLE);
        assert_eq!(
            code(result::event::record(other.cast(), gpu.stream)),
            Code::CUDA_ERROR_INVALID_HANDLE
        );
        assert_eq!(said(), "cuEventRecord: no event");
        let function = gpu.find("faults_pass_f32").unwrap();
        let second = result::module::load_data(c"any".as_ptr().cast()).unwrap();
        let launch =
            |f| code(result::launch_kernel(f, (1, 1, 1), (64, 1, 1), 0, gpu.stream, &mut []));
        let of_second = result::module::get_function(second, c"faults_pass_f32".into()).unwrap();
        assert_eq!(launch(of_second), OK);
        assert_eq!(gpu.synchronize(), OK);
        result::module::unload(second).unwrap();
        assert_eq!(launch(of_second), Code::CUDA_ERROR_INVALID_HANDLE);
        assert_eq!(launch(function), OK);
    }
}

#[test]
fn a_context_ends_with_its_last_release() {
    let Some(gpu) = Gpu::new() else { return };
    let (mark, before) = (timed(), leaks());
    // SAFETY: the device is there; the stream lives until the drop.
    unsafe {
        result::primary_ctx::retain(0).unwrap();
        result::primary_ctx::release(0).unwrap();
        assert_eq!(
            code(result::event::record(mark, gpu.stream)),
            OK,
            "retained twice, released once"
        );
    }
    drop(gpu);
    assert_eq!((leaks() - before, said().as_str()), (1, "a context ends with 1 event"));
    // SAFETY: nothing comes of it.
    let answer = code(unsafe { result::malloc_sync(64) });
    assert_eq!(
        (answer, said().as_str()),
        (Code::CUDA_ERROR_CONTEXT_IS_DESTROYED, "cuMemAlloc: the context was released")
    );
    let next = Gpu::new().unwrap();
    // SAFETY: the software GPU knows whose the event was.
    let answer = code(unsafe { result::event::record(mark, next.stream) });
    assert_eq!(
        (answer, said().as_str()),
        (Code::CUDA_ERROR_INVALID_HANDLE, "cuEventRecord: another context's event")
    );
}

#[test]
fn a_thread_needs_a_context() {
    let Some(gpu) = Gpu::new() else { return };
    let context = result::ctx::get_current().unwrap().unwrap() as usize;
    let other = std::thread::spawn(move || {
        // SAFETY: the context lives until this thread has ended, and what is allocated is freed.
        unsafe {
            assert_eq!(code(result::malloc_sync(64)), Code::CUDA_ERROR_INVALID_CONTEXT);
            assert_eq!(said(), "cuMemAlloc: no context is current on this thread");
            assert_eq!(
                code(result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT)),
                Code::CUDA_ERROR_INVALID_CONTEXT
            );
            result::ctx::set_current(context as sys::CUcontext).unwrap();
            result::free_sync(result::malloc_sync(64).unwrap()).unwrap();
        }
    });
    other.join().unwrap();
    drop(gpu);
}

/// The engine gives back all it took, graphs, events and pinned memory too.
#[test]
fn an_engine_leaks_nothing() {
    if softgpu::has_gpu() || !softgpu::load() {
        return;
    }
    let before = leaks();
    {
        let dev: &mut dyn Engine = &mut Cuda::new(Options::default(), Dtype::F32).unwrap();
        let mut layout = Layout::new(dev.dtype());
        let [written, ahead, moved] =
            [Pool::Staging, Pool::Images, Pool::Acts].map(|pool| layout.take::<f32>(pool, "a", 64));
        dev.reserve(&layout).unwrap();
        let (mut recording, start) = (Default::default(), dev.mark().unwrap());
        for round in 0..3 {
            let numbers = vec![round as f32; 64];
            dev.write(written, &vec![9.0; 64]).unwrap();
            let fill = |to: &mut [f32]| {
                to.copy_from_slice(&numbers);
                Ok(())
            };
            dev.prefetch(ahead, fill).unwrap();
            dev.arrive(ahead.erased()).unwrap();
            dev.replay(&mut recording, |dev| {
                dev.copy(moved, written)?;
                dev.copy(moved, ahead)
            })
            .unwrap();
            assert_eq!(dev.read(moved).unwrap(), numbers);
        }
        let end = dev.mark().unwrap();
        assert!(dev.seconds(&start, &end).unwrap() >= 0.0);
        drop(recording);
    }
    assert_eq!(leaks(), before, "{}", said());
}

#[test]
fn a_kernel_is_loaded_by_its_first_launch_and_not_in_a_capture() {
    let Some(mut gpu) = Gpu::new() else { return };
    let at = gpu.input(&[0f32; 32]);
    let add = |gpu: &Gpu| gpu.launch("faults_add_f32", 1, 32, &[At(at), Float(1.0)]);
    // SAFETY: the stream is alive.
    unsafe {
        result::stream::begin_capture(gpu.stream, THREAD_LOCAL).unwrap();
        assert_eq!(add(&gpu), Code::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        assert_eq!(
            said(),
            "faults_add_f32: first launched in a capture, where it cannot be loaded"
        );
        let end = result::stream::end_capture(gpu.stream).unwrap_err();
        assert_eq!(end.0, Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    }
    assert_eq!(add(&gpu), OK);
    // SAFETY: the stream is alive, and the graph is destroyed.
    unsafe {
        result::stream::begin_capture(gpu.stream, THREAD_LOCAL).unwrap();
        assert_eq!(add(&gpu), OK);
        result::graph::destroy(result::stream::end_capture(gpu.stream).unwrap()).unwrap();
    }
}

/// A capture orders its own work only: it cannot wait for what was queued before it.
#[test]
fn a_capture_does_not_wait_for_what_is_outside() {
    let Some(gpu) = Gpu::new() else { return };
    let mark = timed();
    // SAFETY: the stream and the event are alive.
    unsafe {
        result::event::record(mark, gpu.stream).unwrap();
        result::stream::begin_capture(gpu.stream, THREAD_LOCAL).unwrap();
        let waited = result::stream::wait_event(
            gpu.stream,
            mark,
            sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT,
        );
        assert_eq!(code(waited), Code::CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
        assert_eq!(
            code(result::stream::synchronize(gpu.stream)),
            Code::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        );
        assert!(result::stream::end_capture(gpu.stream).is_err());
        result::event::destroy(mark).unwrap();
    }
}

#[test]
fn shared_memory_of_both_kinds_counts() {
    let Some(mut gpu) = Gpu::new() else { return };
    let out = gpu.empty::<f32>(32);
    let launch = |gpu: &Gpu, kib: u32| {
        gpu.launch_shared("faults_both_kinds_f32", (1, 1, 1), (32, 1, 1), kib << 10, &[At(out)])
    };
    let allow = |gpu: &Gpu, kib: i32| {
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let kernel = gpu.find("faults_both_kinds_f32").unwrap();
        // SAFETY: the function is one of a loaded module.
        code(unsafe { result::function::set_function_attribute(kernel, attribute, kib << 10) })
    };
    assert_eq!((launch(&gpu, 32), gpu.synchronize()), (OK, OK));
    assert_eq!(gpu.read::<f32>(out, 32), [3.0; 32]);
    assert_eq!(launch(&gpu, 33), Code::CUDA_ERROR_INVALID_VALUE, "16 + 33 KiB without leave");
    assert!(
        said().contains("33792 bytes of dynamic and 16384 of static shared memory, where 49152"),
        "{}",
        said()
    );
    assert_eq!(
        (allow(&gpu, 83), allow(&gpu, 84)),
        (OK, Code::CUDA_ERROR_INVALID_VALUE),
        "99 KiB are all there is"
    );
    assert_eq!((launch(&gpu, 83), gpu.synchronize()), (OK, OK));
    assert_eq!(launch(&gpu, 84), Code::CUDA_ERROR_INVALID_VALUE);
    drop(gpu);
    // Another type's kernel has not run yet: only its blocks see what it asks for.
    let mut gpu = Gpu::new().unwrap();
    let out = gpu.empty::<f32>(32);
    let late =
        gpu.launch_shared("faults_both_kinds_bf16", (1, 1, 1), (32, 1, 1), 33 << 10, &[At(out)]);
    assert_eq!((late, gpu.synchronize()), (OK, Code::CUDA_ERROR_LAUNCH_FAILED));
    assert!(
        said().contains("more than 49152 bytes of static and dynamic shared memory"),
        "{}",
        said()
    );
}

#[test]
fn an_event_without_a_time_has_none() {
    let Some(gpu) = Gpu::new() else { return };
    let (start, end, untimed) =
        (timed(), timed(), event(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING));
    // SAFETY: stream and events are alive.
    unsafe {
        result::event::record(start, gpu.stream).unwrap();
        result::event::record(untimed, gpu.stream).unwrap();
        let elapsed = |end| result::event::elapsed(start, end).map_err(|e| e.0);
        assert_eq!(elapsed(end), Err(Code::CUDA_ERROR_INVALID_HANDLE), "not recorded");
        assert_eq!(elapsed(untimed), Err(Code::CUDA_ERROR_INVALID_HANDLE));
        assert_eq!(said(), "cuEventElapsedTime: an event that keeps no time");
        result::event::record(end, gpu.stream).unwrap();
        assert_eq!(gpu.synchronize(), OK);
        assert!(elapsed(end).unwrap() >= 0.0);
        for event in [start, end, untimed] {
            result::event::destroy(event).unwrap();
        }
    }
}

/// A record in a graph has a new time at each launch, and one outside of a capture is no such
/// record.
#[test]
fn an_external_event_is_recorded_by_each_launch_of_its_graph() {
    let Some(mut gpu) = Gpu::new() else { return };
    let (start, inside) = (timed(), timed());
    let at = gpu.empty::<u8>(64);
    // SAFETY: stream, events and memory are alive, and the graph is destroyed.
    unsafe {
        let external = || sys::cuEventRecordWithFlags(inside, gpu.stream, 1).result();
        assert_eq!(code(external()), Code::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(said(), "cuEventRecordWithFlags: an external event outside of a capture");
        result::event::record(start, gpu.stream).unwrap();
        result::stream::begin_capture(gpu.stream, THREAD_LOCAL).unwrap();
        result::memset_d8_async(at, 1, 64, gpu.stream).unwrap();
        external().unwrap();
        let graph = result::stream::end_capture(gpu.stream).unwrap();
        let flags = sys::CUgraphInstantiate_flags(0);
        let exec = result::graph::instantiate(graph, flags).unwrap();
        let not_yet = result::event::elapsed(start, inside);
        assert_eq!(not_yet.unwrap_err().0, Code::CUDA_ERROR_NOT_READY);
        let mut times = Vec::new();
        for _ in 0..3 {
            result::graph::launch(exec, gpu.stream).unwrap();
            assert_eq!(gpu.synchronize(), OK);
            times.push(result::event::elapsed(start, inside).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert!(times[0] >= 0.0 && times.windows(2).all(|t| t[1] - t[0] >= 1.0), "{times:?}");
        result::graph::exec_destroy(exec).unwrap();
        result::graph::destroy(graph).unwrap();
        for event in [start, inside] {
            result::event::destroy(event).unwrap();
        }
    }
}

#[test]
fn an_allocation_lies_at_a_multiple_of_256_and_no_more() {
    let Some(mut gpu) = Gpu::new() else { return };
    let all: Vec<u64> =
        [4, 256, 4096, 1 << 20].iter().map(|&bytes| gpu.empty::<u8>(bytes) % 512).collect();
    assert_eq!(all, [256; 4]);
}
