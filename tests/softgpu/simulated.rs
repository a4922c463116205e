//! Drivers and devices that are not as one would wish, told by the environment of a process.

use std::process::Command;

use crate::util::softgpu;

/// What `probes::driver` prints in an environment. None without a software GPU.
fn driver(env: &[(&str, &str)]) -> Option<String> {
    if softgpu::has_gpu() {
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "softgpu::probes::driver", "--ignored", "--nocapture"]);
    command
        .env("PICIE_SOFTGPU", softgpu::folder(softgpu::Built::Plain)?)
        .env("CUDA_LAUNCH_BLOCKING", "1")
        .envs(env.iter().copied());
    Some(String::from_utf8(command.output().unwrap().stdout).unwrap())
}

#[test]
fn by_default_all_is_well() {
    let Some(said) = driver(&[]) else { return };
    for part in [
        "version 13000",
        "devices 1, the third: Err(CUDA_ERROR_INVALID_DEVICE)",
        "shared 101376",
        "module Ok(())",
        "memory (4294967296, 4294967296)",
        "allocations [CUDA_SUCCESS, CUDA_SUCCESS, CUDA_SUCCESS]",
        "launches [CUDA_SUCCESS, CUDA_SUCCESS, CUDA_SUCCESS]",
        "pinned [CUDA_SUCCESS, CUDA_SUCCESS]",
        "graphs [CUDA_SUCCESS, CUDA_SUCCESS]",
        "race CUDA_ERROR_LAUNCH_FAILED",
    ] {
        assert!(said.contains(part), "no `{part}` in\n{said}");
    }
}

#[test]
fn troubles_are_simulated() {
    let counts = tempfile::NamedTempFile::new().unwrap();
    let counts = counts.path();
    for (name, value, part) in [
        ("SOFTGPU_DRIVER_VERSION", "12040", "version 12040"),
        ("SOFTGPU_DEVICES", "0", "init CUDA_ERROR_NO_DEVICE"),
        ("SOFTGPU_DEVICES", "3", "devices 3, the third: Ok(2)"),
        ("SOFTGPU_BAD_IMAGE", "1", "module Err(CUDA_ERROR_NO_BINARY_FOR_GPU)"),
        (
            "SOFTGPU_MEMORY_MIB",
            "2",
            "allocations [CUDA_SUCCESS, CUDA_SUCCESS, CUDA_ERROR_OUT_OF_MEMORY]",
        ),
        (
            "SOFTGPU_FAIL_ALLOC",
            "2",
            "allocations [CUDA_SUCCESS, CUDA_ERROR_OUT_OF_MEMORY, CUDA_SUCCESS]",
        ),
        ("SOFTGPU_FAIL_HOST_ALLOC", "2", "pinned [CUDA_SUCCESS, CUDA_ERROR_OUT_OF_MEMORY]"),
        (
            "SOFTGPU_FAIL_CAPTURE",
            "1",
            "graphs [CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, CUDA_SUCCESS]",
        ),
        ("SOFTGPU_FAIL_INSTANTIATE", "2", "graphs [CUDA_SUCCESS, CUDA_ERROR_OUT_OF_MEMORY]"),
        // Three allocations, a graph, another, and a kernel, which takes two.
        ("SOFTGPU_MEMORY_MIB", "4", "graphs [CUDA_SUCCESS, CUDA_ERROR_OUT_OF_MEMORY]"),
        ("SOFTGPU_MEMORY_MIB", "6", "launches [CUDA_ERROR_OUT_OF_MEMORY, "),
        ("SOFTGPU_MEMORY_MIB", "8", "launches [CUDA_SUCCESS, "),
        ("SOFTGPU_SHARED", "227", "shared 232448"),
        (
            "SOFTGPU_FAIL",
            "faults_add_f32:2",
            "launches [CUDA_SUCCESS, CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_ILLEGAL_ADDRESS]",
        ),
        (
            "SOFTGPU_FAIL",
            "faults_add:3",
            "launches [CUDA_SUCCESS, CUDA_SUCCESS, CUDA_ERROR_ILLEGAL_ADDRESS]",
        ),
        ("SOFTGPU_ORDERS", "1", "race CUDA_SUCCESS"),
        ("SOFTGPU_COUNTS", counts.to_str().unwrap(), "launches"),
    ] {
        let Some(said) = driver(&[(name, value)]) else { return };
        assert!(said.contains(part), "{name}={value}: no `{part}` in\n{said}");
    }
    let counts = std::fs::read_to_string(counts).unwrap();
    assert!(
        counts.contains("faults_add_f32 3\n") && counts.contains("faults_add_bf16 0\n"),
        "{counts}"
    );
}
