//! Plans of the cuDNN stand-in: as text, in captures, with the memory that they take, and counted.

use std::process::Command;
use std::time::Instant;

use cudarc::driver::{result, sys};

use super::gpu::{Code, code};
use super::graph::status::{BAD_PARAM, EXECUTION, MISALIGNED, TOO_SMALL, VERSION};
use super::graph::{
    BF16, Conv, Cudnn, F32, FORWARD, MODE_A, Memory, PLAN, Raw, Set, WEIGHT, destroy, get, make,
    refuse, said, text_of,
};
use crate::util::softgpu;

const WGRAD: Conv = Conv { direction: WEIGHT, data: F32, weights: F32, bias: None, beta: 0.0 };

#[test]
fn a_plan_is_made_again_from_its_text() {
    let Some(mut dnn) = Cudnn::new() else { return };
    let memory = Memory::new(&mut dnn);
    let plan = dnn.plan(WGRAD, 0, 4);
    let (text, want) = (text_of(plan), memory.gradient(&dnn, plan));
    assert_eq!(get(plan, 405, 24, &mut [0u8; 9]), Err(TOO_SMALL));
    let again = dnn.plan_from(&text).unwrap();
    assert_eq!(text_of(again), text);
    dnn.gpu.write(memory.at[1], &vec![0f32; want.len()]);
    assert_eq!(memory.gradient(&dnn, again), want);

    refuse("", 92801);
    assert_eq!(dnn.plan_from(&text), Err(VERSION), "{}", said());
    refuse("", 0);
    for damaged in [&text[..text.len() / 2], b"hello", b"{}"] {
        assert_eq!(dnn.plan_from(damaged), Err(BAD_PARAM), "{}", said());
    }
    assert_eq!(make(PLAN, &[(405, Set::Text(&text))]), Err(BAD_PARAM), "without a handle");
}

/// cuDNN does not look at the kernel in a text: who keeps one keeps a sum of it as well.
#[test]
fn a_damaged_kernel_is_not_noticed() {
    let Some(mut dnn) = Cudnn::new() else { return };
    let memory = Memory::new(&mut dnn);
    let compiled = Conv { bias: Some(F32), ..Conv::new(FORWARD, BF16) };
    let mut text = text_of(dnn.plan(compiled, 0, 4));
    let is_spoilt = |text: &[u8]| {
        let plan = dnn.plan_from(text).unwrap();
        assert_eq!(memory.run(&dnn, plan), 0);
        dnn.gpu.read::<u16>(memory.at[2], 8) == [u16::MAX; 8]
    };
    assert!(!is_spoilt(&text));
    let at = text.len() - 9;
    text[at] = b'B';
    assert!(is_spoilt(&text));
}

/// Runs a plan in a capture: its status, and what the capture's end answers.
fn captured(dnn: &Cudnn, memory: &Memory, plan: Raw) -> (u32, Code) {
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    // SAFETY: the stream is alive.
    unsafe {
        result::stream::begin_capture(dnn.gpu.stream, mode).unwrap();
        let status = memory.run(dnn, plan);
        let graph = result::stream::end_capture(dnn.gpu.stream);
        if let Ok(graph) = graph {
            result::graph::destroy(graph).unwrap();
        }
        (status, code(graph))
    }
}

#[test]
fn a_capture_does_not_survive_a_first_run() {
    let Some(mut dnn) = Cudnn::new() else { return };
    let memory = Memory::new(&mut dnn);
    let plan = dnn.plan(WGRAD, 1, 4);
    let broken = (EXECUTION, Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    assert_eq!(captured(&dnn, &memory, plan), broken);
    assert!(said().contains("never ran"), "{}", said());
    assert_eq!(memory.run(&dnn, plan), 0);
    assert_eq!(captured(&dnn, &memory, plan), (0, Code::CUDA_SUCCESS));

    refuse("capture=1", 0);
    let [split, plain] = [1, 0].map(|index| dnn.plan(WGRAD, index, 4));
    refuse("", 0);
    for plan in [split, plain] {
        assert_eq!(memory.run(&dnn, plan), 0);
    }
    assert_eq!(captured(&dnn, &memory, split), broken);
    assert_eq!(captured(&dnn, &memory, plain), (0, Code::CUDA_SUCCESS));
}

#[test]
fn addresses_and_handles_are_looked_at() {
    let Some(mut dnn) = Cudnn::new() else { return };
    let Memory { at, workspace } = Memory::new(&mut dnn);
    let plan = dnn.plan(WGRAD, 1, 4);
    assert_eq!(dnn.execute(plan, at.map(|at| at + 16), workspace + 256), 0, "{}", said());
    assert_eq!(dnn.execute(plan, [at[0] + 8, at[1], at[2], at[3]], workspace), MISALIGNED);
    assert_eq!(dnn.execute(plan, at, workspace + 128), MISALIGNED);
    assert_eq!(dnn.execute(plan, at, 0), BAD_PARAM);
    assert_eq!(dnn.execute(plan, [0, at[1], at[2], at[3]], workspace), BAD_PARAM);
    dnn.destroy_handle();
    assert_eq!(dnn.execute(plan, at, workspace), BAD_PARAM);
}

/// For `memory_builds_and_calls_are_counted`: builds the list of mode A, runs one of its engines,
/// loads its text.
#[test]
#[ignore = "run by another test with an environment of its own"]
fn probe() {
    let Some(mut dnn) = Cudnn::new() else { return };
    let memory = Memory::new(&mut dnn);
    let free = || result::mem_get_info().unwrap().0;
    let started = Instant::now();
    let plans: Vec<_> =
        dnn.configs(WGRAD, MODE_A).unwrap().into_iter().map(|config| dnn.build(config)).collect();
    println!(
        "built {} in {} ms",
        plans.iter().filter(|plan| plan.is_ok()).count(),
        started.elapsed().as_millis()
    );
    let (plan, before) = (*plans.last().unwrap().as_ref().unwrap(), free());
    let runs = [0; 3].map(|_| memory.run(&dnn, plan));
    println!("runs {runs:?} take {} MiB", (before - free()) >> 20);
    let again = dnn.plan_from(&text_of(plan)).unwrap();
    println!("again {}", memory.run(&dnn, again));
    for plan in [plan, again] {
        destroy(plan);
    }
    println!("{} MiB stay", (before - free()) >> 20);
}

#[test]
fn memory_builds_and_calls_are_counted() {
    if softgpu::has_gpu() {
        return;
    }
    let Some(folder) = softgpu::folder(softgpu::Built::Plain) else { return };
    let counts = tempfile::NamedTempFile::new().unwrap();
    let run = |env: &[(&str, &str)]| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "softgpu::plans::probe", "--ignored", "--nocapture"]);
        command
            .env("PICIE_SOFTGPU", folder)
            .env("SOFTCUDNN_COUNTS", counts.path())
            .envs(env.iter().copied());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let said = run(&[("SOFTCUDNN_BUILD_MS", "50")]);
    for part in ["runs [0, 0, 0] take 8 MiB", "again 0", "0 MiB stay"] {
        assert!(said.contains(part), "no `{part}` in\n{said}");
    }
    // Four builds, one of which fails at its end and is not counted.
    let ms = said
        .split("built 3 in ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse::<u32>()
        .unwrap();
    assert!(ms >= 200, "{said}");
    let counted = std::fs::read_to_string(&counts).unwrap();
    assert_eq!(counted, "heuristics 1\nplans 3\nplans_json 1\nexecutes 4\n");
    // Two plans with 8 MiB each do not fit.
    assert!(run(&[("SOFTGPU_MEMORY_MIB", "12")]).contains("take 8 MiB\nagain 5001"));
}
