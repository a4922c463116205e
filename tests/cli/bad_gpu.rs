//! A GPU that is not there, not new enough, too small, or breaks: one line, what to do, and nothing
//! lost.

use std::os::unix::fs::symlink;

use super::{Place, TINY, holds, scenes};
use crate::util::softgpu;

fn train(device: &str) -> String {
    // Nothing is loaded for measurements before memory is asked for.
    format!(
        "train --recipe demo --data {} --run run {TINY} --device {device} --autotune off",
        scenes().display()
    )
}

#[test]
fn what_a_gpu_lacks_is_said_with_the_remedy() {
    if softgpu::has_gpu() || softgpu::folder(softgpu::Built::Plain).is_none() {
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
    symlink(
        softgpu::folder(softgpu::Built::Plain).unwrap().join("libcuda.so"),
        place.join("no-cudnn/libcuda.so"),
    )
    .unwrap();
    let only = |dir: &str| format!("LD_LIBRARY_PATH={}", place.join(dir).display());
    // Libraries that this machine has would be found.
    if !softgpu::has_driver() {
        holds(&fails(&only("none")), &["no NVIDIA driver (libcuda)", "--device cpu"]);
        let ran = place.gpu(&only("none"), &train("cuda")).unwrap();
        assert!(!ran.err.contains("read images"), "images are read for nothing: {ran:?}");
        holds(
            &fails(&only("no-cudnn")),
            &["cuDNN", "pip install nvidia-cudnn-cu13", "LD_LIBRARY_PATH"],
        );
    }
    holds(&fails("SOFTCUDNN_VERSION=8907"), &["cuDNN", "9"]);
    holds(
        &fails("SOFTGPU_DRIVER_VERSION=12040"),
        &["knows CUDA 12.4", "needs 13.0", "update the driver"],
    );
    holds(&fails("SOFTGPU_DEVICES=0"), &["no GPU that CUDA can use", "cpu"]);
    holds(
        &fails_on("cuda:3", "").replace("--device cuda:", ""),
        &["no GPU 3: there is one, number 0", "cuda:0"],
    );
    // 1 GiB and 2 % are the driver's.
    holds(&fails("SOFTGPU_MEMORY_MIB=1143"), &["MiB of GPU memory", "96 MiB are free"]);
    holds(&fails("SOFTGPU_MEMORY_MIB=500"), &["MiB of GPU memory", " 0 MiB are free"]);
    holds(&fails("SOFTGPU_FAIL_HOST_ALLOC=1"), &["1 MiB of pinned host memory", "ulimit -l"]);
    holds(&fails("SOFTGPU_FAIL_ALLOC=1"), &["out of memory", "lower --batch"]);
    if picie::device::cuda::missing_kernels().is_none() {
        holds(
            &fails("SOFTGPU_BAD_IMAGE=1"),
            &["kernels in this binary are not for this GPU", "PICIE_CUDA_ARCHS"],
        );
    } else {
        holds(&fails("SOFTGPU_BAD_IMAGE=1"), &["no kernels in this binary", "nvidia-cuda-nvcc"]);
    }
}

/// What the driver takes for kernels, engines and recorded steps is left to it.
#[test]
fn the_batch_that_a_refusal_advises_finishes_its_epochs() {
    let place = Place::new();
    let large = train("cuda").replace("--size 32", "--size 64").replace("--batch 2", "--batch 6");
    let Some(ran) = place.gpu("", &format!("{large} --plan")) else { return };
    if softgpu::has_gpu() {
        return;
    }
    let plan = ran.succeeds().out;
    let mib = |pool: &str| -> f64 {
        let line = plan.lines().find(|line| line.starts_with(pool)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    // Half of the activations fit.
    let room = mib("total") - mib("acts") / 2.0;
    let little = format!("SOFTGPU_MEMORY_MIB={}", ((1024.0 + room) / 0.98).round());
    let why = place.gpu(&little, &large).unwrap().fails();
    holds(
        &why,
        &["MiB of GPU memory beside the driver's own, ", "MiB are free; --batch ", " would fit"],
    );
    let advice = why.split("; ").nth(1).unwrap().split(" would").next().unwrap();
    let [_, batch, _, cluster] = advice.split(' ').collect::<Vec<_>>()[..] else { panic!("{why}") };
    let smaller = large
        .replace("--batch 6", &format!("--batch {batch}"))
        .replace("--batch-cluster 4", &format!("--batch-cluster {cluster}"));
    assert!(!smaller.contains("--batch 1 "), "half of 6 is not 1: {why}");
    place.gpu(&little, &smaller).unwrap().succeeds();
}

#[test]
fn a_step_that_cannot_be_recorded_is_launched_op_by_op() {
    let place = Place::new();
    let whole = format!("{} --deterministic", train("cuda"));
    let Some(ran) = place.gpu("", &whole) else { return };
    if softgpu::has_gpu() {
        return;
    }
    ran.succeeds();
    for (run, trouble) in
        [("capture", "SOFTGPU_FAIL_CAPTURE=1"), ("graph", "SOFTGPU_FAIL_INSTANTIATE=2")]
    {
        let ran = place
            .gpu(trouble, &whole.replace("--run run", &format!("--run {run}")))
            .unwrap()
            .succeeds();
        holds(
            &ran.err,
            &[
                "a step cannot be recorded and is launched op by op, which is slower: recording a step: ",
            ],
        );
        let read =
            |run: &str| std::fs::read(place.join(run).join("checkpoint.safetensors")).unwrap();
        assert!(read(run) == read("run"), "{trouble}: other bytes");
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
