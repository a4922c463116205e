//! The same kernels built with AddressSanitizer and UBSan: tests of this binary run again in a
//! process that has the sanitizers.

use std::path::Path;
use std::process::{Command, Output};

use crate::util::{kernels, softgpu};

/// This binary's tests that match `filters`, on the sanitized software GPU. None where there are no
/// sanitizers.
fn again(filters: &[&str], env: &[(&str, &Path)]) -> Option<Output> {
    if softgpu::has_gpu() {
        return None;
    }
    let Some(runtime) = softgpu::sanitizer() else {
        eprintln!("no AddressSanitizer for the host compiler: the sanitized run is skipped");
        return None;
    };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(filters).args(["--test-threads", "2"]);
    // Whole runs and slopes play the same kernels for minutes; the order of threads is the plain
    // run's to check.
    command.args(
        ["sanitizer::", "cli::", "cuda::step", "gradients", "slope"]
            .map(|skip| ["--skip", skip])
            .as_flattened(),
    );
    command.env("SOFTGPU_ORDERS", "1").envs(env.iter().copied());
    command
        .env("LD_PRELOAD", runtime)
        .env("PICIE_SOFTGPU", softgpu::folder(softgpu::Built::Sanitized)?);
    // NOTE: the Rust side is not instrumented, so leaks are not looked for.
    command.env("ASAN_OPTIONS", "detect_leaks=0");
    Some(command.output().unwrap())
}

fn text(out: &Output) -> String {
    String::from_utf8_lossy(&[&out.stdout[..], &out.stderr[..]].concat()).into_owned()
}

/// And each was launched, so that none is clean for want of a test.
#[test]
fn the_engine_s_kernels_are_clean() {
    let counts = tempfile::NamedTempFile::new().unwrap();
    let tests = ["ops::", "cuda::", "softgpu::results"];
    let Some(out) = again(&tests, &[("SOFTGPU_COUNTS", counts.path())]) else { return };
    assert!(out.status.success(), "{}", text(&out));
    assert!(
        text(&out).contains("test softgpu::results::integer_atomics_count ... ok"),
        "{}",
        text(&out)
    );
    assert!(!text(&out).contains("a context ends with"), "an engine leaks: {}", text(&out));

    let counts = std::fs::read_to_string(counts.path()).unwrap();
    let launched = |kernel: &str| {
        let of_kernel = counts
            .lines()
            .filter_map(|l| l.strip_prefix(kernel)?.strip_prefix('_')?.split_once(' '));
        of_kernel
            .filter(|(act, _)| ["f32", "bf16", "f16"].contains(act))
            .any(|(_, launches)| launches != "0")
    };
    for source in softgpu::sources() {
        for kernel in kernels::parse(&std::fs::read_to_string(&source).unwrap()).kernels {
            let name = kernel.name;
            assert!(
                launched(&name),
                "no test of {tests:?} launches {name} of {}",
                source.display()
            );
        }
    }
}

#[test]
fn writes_outside_are_seen_at_once() {
    for (fault, kernel) in [
        ("a_write_outside_of_an_allocation", "faults_global_f32"),
        ("a_write_outside_of_a_shared_array", "faults_shared_f32"),
    ] {
        let Some(out) = again(&[fault], &[]) else { return };
        let text = text(&out);
        assert!(
            !out.status.success() && text.contains("ERROR: AddressSanitizer: use-after-poison"),
            "{text}"
        );
        assert!(
            text.lines().any(|l| l.trim_start().starts_with("#0") && l.contains(kernel)),
            "{text}"
        );
    }
}

/// Where a copy goes to and where it comes from.
#[test]
fn copies_outside_are_seen() {
    for probe in ["copies_to_the_outside", "copies_from_the_outside"] {
        let name = format!("softgpu::probes::{probe}");
        let Some(out) = again(&[&name, "--ignored"], &[]) else { return };
        let text = text(&out);
        assert!(
            !out.status.success() && text.contains("ERROR: AddressSanitizer: use-after-poison"),
            "{text}"
        );
        assert!(text.contains("faults_copy_outside_f32"), "{text}");
    }
}

#[test]
fn forbidden_memory_and_unaligned_vectors_are_seen() {
    for (probe, part) in [
        ("forbidden", "use-after-poison"),
        ("unaligned", "runtime error: store to misaligned address"),
    ] {
        let Some(out) = again(&[&format!("softgpu::probes::{probe}"), "--ignored"], &[]) else {
            return;
        };
        assert!(!out.status.success() && text(&out).contains(part), "{}", text(&out));
    }
}
