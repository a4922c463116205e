//! Compiles each `cuda/*.cu` once per element type into a fatbin, and lists them in
//! `$OUT_DIR/images.rs`. What launchers need to know of the kernels goes to `$OUT_DIR/kernels.rs`:
//! see `cuda/generate.rs`.
//!
//! nvcc is `$NVCC`, or the first of version 13 or later in `$CUDA_HOME/bin`, where `pip install
//! nvidia-cuda-nvcc` puts it for the active Python, and `$PATH`; an older one only where there is
//! no other. Without one, or with one that cannot compile the kernels, the build succeeds all the
//! same, and the binary says why it has no kernels when a GPU is asked for; only an `$NVCC` that
//! fails is an error. `$PICIE_CUDA_ARCHS` chooses architectures (`80,90a`); `$PICIE_CUDA_WERROR=1`
//! makes warnings errors.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

#[path = "cuda/generate.rs"]
mod generate;
#[path = "cuda/parse.rs"]
mod parse;

const ARCHS: &str = "80,86,89,90a,100,120";
const TYPES: [&str; 3] = ["f32", "bf16", "f16"];
/// CUDA's major version that the engine is written for.
const CUDA: u32 = 13;

/// A compiler that answers.
struct Nvcc {
    path: PathBuf,
    major: u32,
    /// As it says it, such as 13.0.
    version: String,
}

/// One invocation of nvcc.
struct Job {
    stem: String,
    act: &'static str,
    source: PathBuf,
    define: String,
    fatbin: PathBuf,
}

fn main() {
    for name in
        ["NVCC", "CUDA_HOME", "PATH", "VIRTUAL_ENV", "PICIE_CUDA_ARCHS", "PICIE_CUDA_WERROR"]
    {
        println!("cargo:rerun-if-env-changed={name}");
    }
    // A folder: editing, adding or removing any file in it builds anew.
    println!("cargo:rerun-if-changed=cuda");
    println!("cargo:rerun-if-changed=build.rs");
    commit();
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    let sources: Vec<_> = [files("cuh"), files("cu")].concat();
    let texts: Vec<_> = sources.into_iter().map(|path| (path.clone(), read(&path))).collect();
    fs::write(out.join("kernels.rs"), generate::generate(&texts)).expect("a writable OUT_DIR");
    let jobs = jobs(&out);
    let nvcc = nvcc();
    let archs = nvcc.as_ref().map(archs).unwrap_or_default();
    let missing = match &nvcc {
        Some(nvcc) => {
            println!("cargo:rerun-if-changed={}", nvcc.path.display());
            compile(nvcc, &archs, &jobs).err().map(|said| {
                let Nvcc { path, version, .. } = nvcc;
                let said = format!(
                    "{} (version {version}) does not compile the kernels: {said}",
                    path.display()
                );
                // NOTE: an $NVCC that does not work is a mistake to hear about, not to pass over.
                assert!(env::var_os("NVCC").is_none_or(|v| v.is_empty()), "$NVCC is {said}");
                println!("cargo:warning=no kernels: {}", said.lines().next().unwrap_or_default());
                said.lines().take(3).collect::<Vec<_>>().join(" ")
            })
        }
        None => Some("built without nvcc".to_string()),
    };
    // Of the kernels in this build, for `picie --version` and reports; empty where there are none.
    let built = nvcc.as_ref().filter(|_| missing.is_none());
    let by = built.map_or("", |nvcc| &nvcc.version);
    let archs = if built.is_some() { archs } else { Vec::new() };
    println!("cargo:rustc-env=PICIE_KERNEL_ARCHS={}", archs.join(","));
    println!("cargo:rustc-env=PICIE_KERNEL_NVCC={by}");
    let mut text = "/// Why there are no kernels in this binary.\n".to_string();
    writeln!(text, "pub const MISSING_KERNELS: Option<&str> = {missing:?};").expect("memory");
    text += "pub(super) const IMAGES: &[Image] = &[\n";
    for Job { stem, act, fatbin, .. } in &jobs {
        let data = match missing {
            None => format!("include_bytes!({fatbin:?})"),
            Some(_) => r#"b"no kernels\0""#.into(),
        };
        let data = format!("&Aligned(*{data}).0");
        writeln!(text, "    Image {{ stem: {stem:?}, act: {act:?}, data: {data} }},")
            .expect("memory");
    }
    text += "];\n";
    fs::write(out.join("images.rs"), text).expect("a writable OUT_DIR");
}

/// `$PICIE_COMMIT` of this build, for reports.
fn commit() {
    let git = |words: &[&str]| {
        let out =
            Command::new("git").args(words).output().ok().filter(|out| out.status.success())?;
        Some(String::from_utf8(out.stdout).ok()?.trim().to_string())
    };
    // They change with every commit and checkout; in a worktree they lie elsewhere.
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", name]);
        if let Some(path) = path.filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let said = git(&["describe", "--always", "--dirty", "--exclude=*"]);
    println!("cargo:rustc-env=PICIE_COMMIT={}", said.as_deref().unwrap_or("unknown"));
}

/// The files of `cuda/` that end in `.ext`, in order.
fn files(ext: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir("cuda").expect("the folder cuda").flatten().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == ext));
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn jobs(out: &Path) -> Vec<Job> {
    let sources = files("cu");
    let job = |source: &PathBuf, act: &'static str| {
        let stem = source.file_stem().expect("a file name").to_string_lossy().into_owned();
        Job {
            source: source.clone(),
            define: format!("-DPICIE_ACT_{}", act.to_uppercase()),
            fatbin: out.join(format!("{stem}.{act}.fatbin")),
            stem,
            act,
        }
    };
    sources.iter().flat_map(|source| TYPES.map(|act| job(source, act))).collect()
}

/// The nvcc to compile with.
fn nvcc() -> Option<Nvcc> {
    let exe = |dir: PathBuf| dir.join(format!("nvcc{}", env::consts::EXE_SUFFIX));
    let var = |name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(path) = var("NVCC") {
        return Some(
            ask(path.clone())
                .unwrap_or_else(|| panic!("$NVCC is {}, which does not run", path.display())),
        );
    }
    let mut places = vec![];
    places.extend(var("CUDA_HOME").map(|home| exe(home.join("bin"))));
    places.extend(site_packages().map(|site| exe(site.join("nvidia/cu13/bin"))));
    places.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()).map(exe));
    let mut found: Vec<Nvcc> =
        places.into_iter().filter(|path| path.is_file()).filter_map(ask).collect();
    let fit = found.iter().position(|nvcc| nvcc.major >= CUDA).unwrap_or(0);
    (!found.is_empty()).then(|| found.swap_remove(fit))
}

/// What an nvcc says of itself: "Cuda compilation tools, release 13.0, V13.0.88".
fn ask(path: PathBuf) -> Option<Nvcc> {
    let out =
        Command::new(&path).arg("--version").output().ok().filter(|out| out.status.success())?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let version =
        said.split("release ").nth(1).unwrap_or("unknown").split(',').next().unwrap_or_default();
    let major = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    Some(Nvcc { path, major, version: version.trim().to_string() })
}

/// The architectures to compile for: those of `$PICIE_CUDA_ARCHS` or all, less what this nvcc does
/// not know.
fn archs(nvcc: &Nvcc) -> Vec<String> {
    let asked = env::var("PICIE_CUDA_ARCHS").unwrap_or_else(|_| ARCHS.into());
    let known = Command::new(&nvcc.path).arg("--list-gpu-arch").output();
    let known = known
        .ok()
        .filter(|out| out.status.success())
        .map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
    let number = |arch: &str| arch.trim_end_matches(|c: char| !c.is_ascii_digit()).to_string();
    let knows = |arch: &str| {
        let listed = |line: &str| {
            line.trim()
                .strip_prefix("compute_")
                .is_some_and(|listed| number(listed) == number(arch))
        };
        known.as_ref().is_none_or(|known| known.lines().any(listed))
    };
    let (fit, unfit): (Vec<_>, Vec<_>) = asked
        .split(',')
        .map(|arch| arch.trim().to_string())
        .filter(|a| !a.is_empty())
        .partition(|arch| knows(arch));
    if !unfit.is_empty() {
        let (path, unfit) = (nvcc.path.display(), unfit.join(", sm_"));
        println!(
            "cargo:warning={path} is of version {} and does not know sm_{unfit}: no kernels for those",
            nvcc.version
        );
    }
    fit
}

/// Where the active Python keeps its packages.
fn site_packages() -> Option<PathBuf> {
    let ask = ["-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"];
    let out = Command::new("python3").args(ask).output().ok().filter(|out| out.status.success())?;
    Some(PathBuf::from(String::from_utf8(out.stdout).ok()?.trim()))
}

/// Errors: what nvcc said.
fn compile(nvcc: &Nvcc, archs: &[String], jobs: &[Job]) -> Result<(), String> {
    let Some(last) = archs.last().map(|arch| arch.trim_end_matches(|c: char| !c.is_ascii_digit()))
    else {
        return Err("it knows none of the architectures".into());
    };
    let mut flags: Vec<String> =
        ["-O3", "-std=c++17", "-lineinfo", "--fatbin", "-Xptxas", "-v"].map(String::from).into();
    for arch in archs {
        flags.push(format!("-gencode=arch=compute_{arch},code=sm_{arch}"));
    }
    // PTX for architectures that come later.
    flags.push(format!("-gencode=arch=compute_{last},code=compute_{last}"));
    // A quarter of the bytes; what loads these kernels is a driver of CUDA 13.
    if nvcc.major >= CUDA {
        flags.push("--compress-mode=size".into());
    }
    if env::var("PICIE_CUDA_WERROR").is_ok_and(|v| v == "1") {
        flags.push("-Werror=all-warnings".into());
    }
    let headers: String = files("cuh").iter().map(|path| read(path)).collect();
    let queue = Mutex::new(jobs.iter());
    let failed: Mutex<Vec<String>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(job) = queue.lock().expect("no thread panics").next() else { return };
                    // What the fatbin is made from; the same again is not compiled again.
                    let stamp = format!("{flags:?} {} {headers}{}", job.define, read(&job.source));
                    let stamped = job.fatbin.with_extension("stamp");
                    if job.fatbin.exists()
                        && fs::read_to_string(&stamped).is_ok_and(|old| old == stamp)
                    {
                        continue;
                    }
                    let mut command = Command::new(&nvcc.path);
                    command
                        .args(&flags)
                        .arg(&job.define)
                        .arg(&job.source)
                        .arg("-o")
                        .arg(&job.fatbin);
                    let Output { status, stderr, stdout } =
                        command.output().expect("nvcc ran a moment ago");
                    let said = [stdout, stderr].concat();
                    // What ptxas says of registers and spills, for who wants to know.
                    fs::write(job.fatbin.with_extension("log"), &said).expect("a writable OUT_DIR");
                    if status.success() {
                        fs::write(&stamped, &stamp).expect("a writable OUT_DIR");
                    } else {
                        let said = String::from_utf8_lossy(&said).into_owned();
                        failed
                            .lock()
                            .expect("no thread panics")
                            .push(format!("{}: {said}", job.source.display()));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no thread panics");
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}
