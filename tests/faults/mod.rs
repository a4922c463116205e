//! Faults on purpose: power cuts and errors at any call that changes a file, threads that cannot be
//! started, limits on memory, headers that claim too much, and files that were changed at random.

mod claims;
mod disk;
mod limits;
mod load;
mod parsers;
mod soak;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::cli::{Place, Ran, scenes};
use crate::util::{binary, root, softgpu, tmp};

/// A run of well under a second: two stages of the network, from random weights.
const TINY: &str = "train --recipe picie --levels 2 --weights none --size 32 --stored 64 --batch 4 \
                    --batch-cluster 4 --init-batches 1 --clusters 9 --epochs 2 --eval-size 32 \
                    --kmeans-iters 3 --run run";

/// The words of [`TINY`] with its data.
fn tiny() -> String {
    format!("{TINY} --data {}", scenes().display())
}

/// `tests/faults/shim.cpp` as a library. None without a host compiler.
pub fn shim() -> Option<&'static Path> {
    static SHIM: OnceLock<Option<PathBuf>> = OnceLock::new();
    SHIM.get_or_init(|| {
        let Some(compiler) = softgpu::compiler() else {
            eprintln!("no host C++ compiler: tests of faults are skipped");
            return None;
        };
        // Several processes may build it at once.
        let library = tmp().join(format!("faults-{}.so", std::process::id()));
        let mut command = Command::new(compiler);
        command.args(["-std=c++17", "-O1", "-shared", "-fPIC", "-o"]).arg(&library);
        command.arg(root().join("tests/faults/shim.cpp")).arg("-ldl");
        let out = command.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Some(library)
    })
    .as_deref()
}

/// A number in KiB of a process's `status`, as the system says; none where it has ended.
fn status(pid: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Memory in KiB and open files of a process.
fn use_of(pid: u32) -> Option<(u64, usize)> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    Some((status(pid, "VmRSS:")?, files))
}

/// Runs a command to its end, which must be a good one. Returns its seconds, and the most memory in
/// KiB that it had.
fn measured(mut command: Command) -> (f64, u64) {
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut most = 0;
    loop {
        most = status(child.id(), "VmHWM:").unwrap_or(most);
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success(), "{command:?}: {ended}");
            return (begun.elapsed().as_secs_f64(), most);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs `picie` with `words` on one thread in `place`, with the faults that `env` asks of the shim
/// for the files below `run` unless it names another folder.
pub fn faulty(place: &Place, shim: &Path, env: &[(&str, &str)], words: &str) -> Ran {
    let mut command = place.command(binary(), words);
    command.env("LD_PRELOAD", shim).env("FAULT_BELOW", place.join("run"));
    command.env("RAYON_NUM_THREADS", "1").envs(env.iter().copied());
    let out = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: out.status.code(), out: text(out.stdout), err: text(out.stderr) }
}
