//! A GPU that is not there, not new enough, too small, or breaks: one line, what to do, and nothing lost.

use std::os::unix::fs::symlink;

use super::{Place, TINY, holds, scenes};
use crate::util::softgpu;

fn train(device: &str) -> String {
    format!("train --recipe demo --data {} --run run {TINY} --device {device}", scenes().display())
}

#[test]
fn what_a_gpu_lacks_is_said_with_the_remedy() {
    if softgpu::has_gpu() || softgpu::folder(false).is_none() {
        return;
    }
    let place = Place::new();
    let fails_on = |device: &str, env: &str| {
        let why = place.gpu(env, &train(device)).unwrap().fails();
        assert!(!place.join("run").exists(), "a failed start leaves a run folder");
        why
    };
    let fails = |env: &str| fails_on("cuda", env);
    std::fs::create_dir(place.join("none")).unwrap();
    std::fs::create_dir(place.join("no-cudnn")).unwrap();
    symlink(softgpu::folder(false).unwrap().join("libcuda.so"), place.join("no-cudnn/libcuda.so")).unwrap();
    let only = |dir: &str| format!("LD_LIBRARY_PATH={}", place.join(dir).display());
    // Libraries that this machine has would be found.
    if !softgpu::has_driver() {
        holds(&fails(&only("none")), &["no NVIDIA driver (libcuda)", "--device cpu"]);
        let ran = place.gpu(&only("none"), &train("cuda")).unwrap();
        assert!(!ran.err.contains("read images"), "images are read for nothing: {ran:?}");
        holds(&fails(&only("no-cudnn")), &["cuDNN", "pip install nvidia-cudnn-cu13", "LD_LIBRARY_PATH"]);
    }
    holds(&fails("SOFTCUDNN_VERSION=8907"), &["cuDNN", "9"]);
    holds(&fails("SOFTGPU_DRIVER_VERSION=12040"), &["knows CUDA 12.4", "needs 13.0", "update the driver"]);
    holds(&fails("SOFTGPU_DEVICES=0"), &["no GPU that CUDA can use", "cpu"]);
    holds(&fails_on("cuda:3", "").replace("--device cuda:", ""), &["no GPU 3: there is one, number 0", "cuda:0"]);
    holds(&fails("SOFTGPU_MEMORY_MIB=96"), &["MiB of GPU memory", "96 MiB are free"]);
    let little = fails("SOFTGPU_MEMORY_MIB=217");
    holds(&little, &["MiB of GPU memory, 217 MiB are free; --batch 1 --batch-cluster ", "would fit"]);
    holds(&fails("SOFTGPU_FAIL_ALLOC=1"), &["out of memory", "lower --batch"]);
    if picie::device::cuda::missing_kernels().is_none() {
        holds(&fails("SOFTGPU_BAD_IMAGE=1"), &["kernels in this binary are not for this GPU", "PICIE_CUDA_ARCHS"]);
    } else {
        holds(&fails("SOFTGPU_BAD_IMAGE=1"), &["no kernels in this binary", "nvidia-cuda-nvcc"]);
    }
}

#[test]
fn flags_of_gpus_are_refused_on_the_cpu() {
    let place = Place::new();
    for flag in ["--precision bf16", "--no-graph"] {
        let why = place.picie(&format!("{} {flag}", train("cpu"))).fails();
        holds(&why, &[flag.split(' ').next().unwrap(), "is for GPUs", "--device cuda"]);
    }
    let wrong = place.picie("train --device gpu");
    assert_eq!(wrong.code, Some(2));
    holds(&wrong.err, &["use auto, cpu, cuda or cuda:N"]);
    holds(&place.picie("train --profile-steps 5:5").err, &["use A:B with A below B"]);
}

#[test]
fn devices_says_what_there_is() {
    let place = Place::new();
    if softgpu::has_gpu() {
        return;
    }
    holds(&place.picie("devices").succeeds().out, &["cpu", "threads", "cuda    none"]);
    if let Some(ran) = place.gpu("", "devices") {
        holds(&ran.succeeds().out, &["cuda:0", "compute capability 9.0", "driver for CUDA 13.0"]);
    }
}
