//! Temporary folders to run the binary in, and what the tests share: a data set and a finished run
//! on it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Once, OnceLock};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tempfile::TempDir;

use super::{Ran, TINY};
use crate::util::{binary, softgpu, tmp};

/// Where this process's folders lie. What earlier processes left here is removed first: a static is
/// never dropped.
fn base() -> &'static Path {
    static BASE: OnceLock<(PathBuf, File)> = OnceLock::new();
    let make = || {
        let all = tmp();
        for entry in std::fs::read_dir(&all).unwrap().flatten() {
            let path = entry.path();
            let ours = path.extension().is_some_and(|e| e == "cli-lock");
            // A lock that can be had belongs to a process that ended.
            if ours && File::open(&path).is_ok_and(|lock| lock.try_lock().is_ok()) {
                let _ = std::fs::remove_dir_all(path.with_extension("cli"));
                let _ = std::fs::remove_file(&path);
            }
        }
        let base = all.join(format!("{}.cli", std::process::id()));
        let lock = File::create(base.with_extension("cli-lock")).unwrap();
        lock.lock().unwrap();
        std::fs::create_dir_all(&base).unwrap();
        (base, lock)
    };
    &BASE.get_or_init(make).0
}

/// A temporary working folder with a home and a cache beside it.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        let place = Place(tempfile::tempdir_in(base()).unwrap());
        std::fs::create_dir(place.path()).unwrap();
        place
    }

    /// The working folder.
    pub fn path(&self) -> PathBuf {
        self.0.path().join("work")
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    pub fn cache(&self) -> PathBuf {
        self.0.path().join("cache")
    }

    /// `program` in this place, with `words` split at spaces.
    pub fn command(&self, program: impl AsRef<OsStr>, words: &str) -> Command {
        let mut command = Command::new(program);
        command.args(words.split_whitespace()).current_dir(self.path());
        command.env("HOME", self.0.path().join("home")).env("XDG_CACHE_HOME", self.cache());
        // What is not about GPUs runs on the CPU engine, on a machine with one too.
        command.env("CUDA_VISIBLE_DEVICES", "");
        command
    }

    /// `picie` with `words` where a GPU is at hand, or the software one; `env` as NAME=VALUE, split
    /// at spaces. None without both.
    pub fn gpu(&self, env: &str, words: &str) -> Option<Ran> {
        Some(ran(self.gpu_command(env, words)?.output().unwrap()))
    }

    /// Starts it.
    pub fn start_gpu(&self, env: &str, words: &str) -> Option<Running> {
        Some(running(self.gpu_command(env, words)?))
    }

    fn gpu_command(&self, env: &str, words: &str) -> Option<Command> {
        let mut command = self.command(binary(), words);
        command.env_remove("CUDA_VISIBLE_DEVICES");
        if !softgpu::has_gpu() {
            command.env("LD_LIBRARY_PATH", softgpu::folder(softgpu::Built::Plain)?);
            // Work runs as late as it may, so that a wait that is missing anywhere shows.
            command.env("SOFTGPU_ORDERS", "1").env("SOFTGPU_ASYNC", "late");
        }
        command.envs(env.split_whitespace().map(|pair| pair.split_once('=').unwrap()));
        Some(command)
    }

    /// `picie` with `words`, split at spaces.
    pub fn picie(&self, words: &str) -> Ran {
        self.picie_on(words, [] as [&str; 0])
    }

    /// `picie` with `words`, split at spaces, and then `more` as they are.
    pub fn picie_on(
        &self,
        words: &str,
        more: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Ran {
        let mut command = assert_cmd::Command::from_std(self.command(binary(), words));
        ran(command.args(more.into_iter().map(Into::into)).output().unwrap())
    }

    /// `picie` with `words`, started by the shell after `before`.
    pub fn shell(&self, before: &str, words: &str) -> Ran {
        let mut command = self.command("sh", "-c");
        let line = format!("{before}; exec \"$0\" {words}");
        ran(command.arg(line).arg(binary()).output().unwrap())
    }

    /// Starts `picie` with `words` on `threads` threads.
    pub fn start(&self, words: &str, threads: usize) -> Running {
        self.start_after(":", words, threads)
    }

    /// As [`Place::start`], by a shell that does `before` first.
    pub fn start_after(&self, before: &str, words: &str, threads: usize) -> Running {
        let mut command = self.command("sh", "-c");
        command.arg(format!("{before}; exec \"$0\" {words}")).arg(binary());
        command.env("RAYON_NUM_THREADS", threads.to_string());
        running(command)
    }

    /// The scenes of [`scenes`], to be damaged.
    pub fn scenes(&self, name: &str) -> PathBuf {
        let to = self.join(name);
        for file in files(scenes()) {
            std::fs::create_dir_all(to.join(&file).parent().unwrap()).unwrap();
            std::fs::copy(scenes().join(&file), to.join(&file)).unwrap();
        }
        to
    }
}

fn running(mut command: Command) -> Running {
    signals_reach_commands();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let err = child.stderr.take().map(BufReader::new);
    Running { child, err, seen: String::new(), since: Instant::now() }
}

/// Commands would ignore what this process was started to ignore, by `nohup` or by `&` in a script.
/// What is caught here, and there does nothing, they heed.
#[cfg(target_os = "linux")]
fn signals_reach_commands() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            if mask(&std::fs::read_to_string("/proc/self/status").unwrap(), "SigIgn:", signal) {
                signal_hook::flag::register(signal, Arc::default()).unwrap();
            }
        }
    });
}

#[cfg(not(target_os = "linux"))]
fn signals_reach_commands() {}

/// Whether a signal is in a mask of a process's `status`, as /proc has it.
#[cfg(target_os = "linux")]
fn mask(status: &str, name: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << (signal - 1)) > 0
}

fn ran(output: std::process::Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// All files below `dir`, relative to it, sorted.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => open.push(path),
                path => found.push(path.strip_prefix(dir).unwrap().to_path_buf()),
            }
        }
    }
    found.sort();
    found
}

/// A running command; it ends with the value.
pub struct Running {
    child: Child,
    /// None: nobody reads any more.
    err: Option<BufReader<ChildStderr>>,
    seen: String,
    since: Instant,
}

impl Running {
    /// What a command of a test takes at most: one that was not stopped writes for ever.
    const LIMIT: Duration = Duration::from_secs(600);

    /// Waits for a line of stderr that begins with `start`, and returns it.
    #[track_caller]
    pub fn wait_for(&mut self, start: &str) -> &str {
        loop {
            let from = self.seen.len();
            assert!(self.read_line(), "no {start:?} in {:?}", self.seen);
            if self.seen[from..].starts_with(start) {
                return &self.seen[from..];
            }
        }
    }

    /// Another line of stderr; false at its end.
    fn read_line(&mut self) -> bool {
        assert!(self.since.elapsed() < Self::LIMIT, "it does not end");
        self.err.as_mut().is_some_and(|err| err.read_line(&mut self.seen).unwrap() > 0)
    }

    /// Closes the reading end of its stderr: what it writes from here on fails, as on a terminal
    /// that is gone.
    pub fn stop_listening(&mut self) {
        self.err = None;
    }

    /// Waits until it heeds SIGINT or SIGTERM, as the system says.
    #[cfg(target_os = "linux")]
    pub fn wait_for_handlers(&mut self) {
        let status = format!("/proc/{}/status", self.child.id());
        while !mask(&std::fs::read_to_string(&status).unwrap(), "SigCgt:", SIGTERM) {
            assert!(self.child.try_wait().unwrap().is_none(), "it ended before it had handlers");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself. What it wrote must fit into a pipe until then.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Sends a signal by its name, such as INT.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits for the end; the rest of stderr is in the answer.
    pub fn finish(mut self) -> Ran {
        while self.read_line() {}
        let code = self.child.wait().unwrap().code();
        Ran { code, out: String::new(), err: std::mem::take(&mut self.seen) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Six training and three validation scenes.
pub fn scenes() -> &'static Path {
    &trained_place().scenes
}

/// The run folder of a finished run on [`scenes`], of the demo recipe with [`TINY`] numbers, on one
/// thread.
pub fn trained() -> &'static Path {
    static RUN: OnceLock<PathBuf> = OnceLock::new();
    RUN.get_or_init(|| {
        let shared = trained_place();
        let ran = shared.place.start(&format!("train {TINY}"), 1).finish().succeeds();
        assert!(!ran.err.contains("left out"), "{ran:?}");
        shared.place.join("runs/demo-001")
    })
}

struct Shared {
    place: Place,
    scenes: PathBuf,
}

/// The scenes lie where `train` without `--data` looks for its own, which are more: their
/// `scenes.json` says so.
fn trained_place() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let place = Place::new();
        let scenes = place.cache().join("picie/scenes-256-64-1");
        place.picie_on("scenes --train 6 --val 3", [&scenes]).succeeds();
        let recipe = std::fs::read_to_string(scenes.join("scenes.json")).unwrap();
        let grown =
            recipe.replace("\"train\":6", "\"train\":256").replace("\"val\":3", "\"val\":64");
        std::fs::write(scenes.join("scenes.json"), grown).unwrap();
        Shared { place, scenes }
    })
}
