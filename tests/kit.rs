//! `benches/kit/`: what is to run on a machine with a GPU, tried on the software GPU, with tools
//! that only look like CUDA's.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cli::{Ran, holds};
use crate::util::{binary, root, softgpu};

/// An unpacked kit, and where its results go. None where there is a GPU, which would be measured,
/// or no software GPU.
struct Kit(tempfile::TempDir);

impl Kit {
    fn new() -> Option<Self> {
        if softgpu::has_gpu() {
            return None;
        }
        let libraries = softgpu::folder(softgpu::Built::Plain)?;
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path().join("files");
        std::fs::create_dir_all(files.join("tmp")).unwrap();
        std::fs::create_dir(files.join("tests")).unwrap();
        for name in [
            "run.sh",
            "stages.sh",
            "report.py",
            "stem.py",
            "fused.py",
            "backend.py",
            "picie_torch.py",
        ] {
            std::fs::copy(root().join("benches/kit").join(name), dir.path().join(name)).unwrap();
        }
        for (name, of) in [
            ("picie", binary()),
            ("picie-tests", std::env::current_exe().unwrap()),
            ("tests/golden", root().join("tests/golden")),
            ("softgpu", libraries.into()),
        ] {
            symlink(of, files.join(name)).unwrap();
        }
        Some(Kit(dir))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A program of the kit's own folder of tools that runs this for a shell.
    fn tool(&self, name: &str, script: &str) {
        let path = self.path("tools").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(&self, stage: &str, env: &[(&str, &str)]) -> Ran {
        let mut command = Command::new(self.path("run.sh"));
        command
            .arg(stage)
            .arg(self.path("out"))
            .envs(env.iter().copied())
            .env_remove("PICIE_SOFTGPU");
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.path("tools").display()));
        let out = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: out.status.code(), out: text(out.stdout), err: text(out.stderr) }
    }

    /// The state of each stage and its note, from `result.json`.
    fn stages(&self) -> Vec<(String, String, String)> {
        let result: Value =
            serde_json::from_slice(&std::fs::read(self.path("out/result.json")).unwrap()).unwrap();
        let text = |stage: &Value, key: &str| stage[key].as_str().unwrap().to_string();
        let stages = result["stages"].as_array().unwrap().iter();
        stages.map(|s| (text(s, "stage"), text(s, "state"), text(s, "note"))).collect()
    }
}

#[test]
fn a_packed_test_binary_finds_what_it_needs() {
    let Some(kit) = Kit::new() else { return };
    let ran = kit.run("tests", &[]).succeeds();
    holds(&ran.out, &["SOFTWARE GPU: no figure here is a speed.", "tests        ok"]);
    let [sheet, tests] = &kit.stages()[..] else { panic!("{:?}", kit.stages()) };
    holds(&sheet.2, &["software GPU", "compute capability 9.0"]);
    assert!(
        tests.2.starts_with("test result: ok. ") && !tests.2.contains(" 0 passed"),
        "{tests:?}"
    );
    let files: Vec<_> = kit.path("out").read_dir().unwrap().flatten().collect();
    assert!(files.len() <= 8 && files.iter().all(|f| f.path().is_file()), "{files:?}");
}

#[test]
fn a_packed_test_binary_looks_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let tmp = dir.path().join("tmp");
    std::fs::create_dir(&tmp).unwrap();
    let fails = |test: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let out = command.args(["--exact", test]).env("PICIE_ROOT", dir.path()).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(!out.status.success() && text.contains("1 failed"), "{text}");
        text
    };
    let golden = dir.path().join("tests/golden/adam.safetensors");
    holds(
        &fails("ops::adam::gradients_of_a_scaled_loss_are_scaled_back"),
        &[golden.to_str().unwrap()],
    );
    // There is no `picie`; where it would have run is there.
    fails("cli::help::devices_are_shown");
    assert!(
        tmp.read_dir().unwrap().flatten().any(|e| e.path().extension().is_some_and(|e| e == "cli"))
    );
}

#[test]
fn a_stage_that_fails_is_named_with_its_reason_and_stops_no_other() {
    let Some(kit) = Kit::new() else { return };
    // The first stage to compute anything trains.
    let ran =
        kit.run("smoke", &[("SOFTGPU_FAIL", "adam_step_bf16:1"), ("CUDA_LAUNCH_BLOCKING", "1")]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let stages = kit.stages();
    assert_eq!((&*stages[0].1, &*stages[1].1), ("ok", "failed"), "{stages:?}");
    holds(&stages[1].2, &["picie: adam_step", "CUDA_ERROR_ILLEGAL_ADDRESS"]);
    holds(&ran.out, &["smoke        failed"]);
    assert_eq!(kit.run("dance", &[]).code, Some(2));
}

/// The commands are real, what the tools say is not.
#[test]
fn sanitizer_and_profiler_are_asked_and_heard() {
    let Some(kit) = Kit::new() else { return };
    let log = "tool=$2; while [ \"$1\" != --log-file ]; do shift; done; log=$2; shift 2";
    let clean = "[ $tool = initcheck ] && at=' at conv_add_bf16+0x10' || at=; echo \"$at ERROR SUMMARY: 0 errors\" > \"$log\"";
    kit.tool("compute-sanitizer", &format!("{log}; {clean}; [ $tool != memcheck ] || exec \"$@\""));
    assert_eq!(kit.run("sanitize", &[]).code, Some(1));
    let note = "memcheck 0; racecheck 0; initcheck 0 in conv_add_bf16";
    assert_eq!(kit.stages()[1], ("sanitize".into(), "failed".into(), note.into()));

    let kernels = "adam_step norm_apply norm_stats head_loss head_assign view_render stem_pool conv_add kmeans_mean top_part";
    let rows = format!(
        "i=0; for k in {kernels}; do echo \"\\\"$i\\\",\\\"${{k}}_bf16\\\",\\\"1,500\\\"\"; i=$((i+1)); done"
    );
    let table = format!(
        "{{ echo '\"ID\",\"Kernel Name\",\"gpu__time_duration.sum\"'; {rows}; }} > \"$log\""
    );
    kit.tool("ncu", &format!("echo ==PROF== $*; {log}; {table}; exec \"$@\""));
    let ran = kit.run("profile", &[]).succeeds();
    holds(&ran.out, &["10 kernels in kernels.csv", "\nadam_step_bf16", "  1.5  "]);
    let log = std::fs::read_to_string(kit.path("out/log.txt")).unwrap();
    assert!(log.contains("bench ") && !log.contains("picie: "), "{log}");
}

#[test]
fn all_stages_fit_in_ten_minutes_and_are_written() {
    let read = |name: &str| std::fs::read_to_string(root().join("benches/kit").join(name)).unwrap();
    let (run, stages) = (read("run.sh"), read("stages.sh"));
    let between =
        |from: &str| run.split(from).nth(1).unwrap().split(')').next().unwrap().to_string();
    let names: Vec<String> = between("\nstages=(").split_whitespace().map(String::from).collect();
    let limits: Vec<u32> = between("limit=(")
        .split('=')
        .skip(1)
        .map(|n| n.split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!((names.len(), limits.len()), (9, 9));
    assert!(limits.iter().sum::<u32>() <= 580, "{limits:?}");
    for name in names {
        assert!(stages.contains(&format!("\n{name}() {{")), "stages.sh has no {name}");
    }
}

#[test]
fn what_tools_print_is_read() {
    let script = Path::new("benches/kit/report_test.py");
    let Ok(out) = Command::new("python3").arg("-B").arg(root().join(script)).output() else {
        return eprintln!("no python3: {} is not run", script.display());
    };
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
