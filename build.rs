//! Compiles each `cuda/*.cu` once per element type into a fatbin, and lists them in `$OUT_DIR/images.rs`.
//!
//! nvcc is looked for in `$NVCC`, `$CUDA_HOME/bin`, `$PATH`, and where `pip install nvidia-cuda-nvcc` puts it for the active
//! Python. Without one the build succeeds, and the binary says what is missing when a GPU is asked for.
//! `$PICIE_CUDA_ARCHS` chooses architectures (`80,90a`); `$PICIE_CUDA_WERROR=1` makes warnings errors.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

const ARCHS: &str = "80,86,89,90a,100,120";
const TYPES: [&str; 3] = ["f32", "bf16", "f16"];

/// One invocation of nvcc.
struct Job {
    name: String,
    source: PathBuf,
    define: String,
    fatbin: PathBuf,
}

fn main() {
    for name in ["NVCC", "CUDA_HOME", "PATH", "VIRTUAL_ENV", "PICIE_CUDA_ARCHS", "PICIE_CUDA_WERROR"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    // A folder: editing, adding or removing any file in it builds anew.
    println!("cargo:rerun-if-changed=cuda");
    println!("cargo:rerun-if-changed=build.rs");
    commit();
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    let jobs = jobs(&out);
    let mut text = String::new();
    match nvcc() {
        Some(nvcc) => {
            println!("cargo:rerun-if-changed={}", nvcc.display());
            compile(&nvcc, &jobs);
            text += "/// Why there are no kernels in this binary.\npub const MISSING_KERNELS: Option<&str> = None;\n";
            text += "pub(super) const IMAGES: &[Image] = &[\n";
            for Job { name, fatbin, .. } in &jobs {
                writeln!(text, "    Image {{ name: {name:?}, data: include_bytes!({fatbin:?}) }},").expect("memory");
            }
        }
        None => {
            text += "/// Why there are no kernels in this binary.\npub const MISSING_KERNELS: Option<&str> = Some(\"built without nvcc\");\n";
            text += "pub(super) const IMAGES: &[Image] = &[\n";
            for Job { name, .. } in &jobs {
                writeln!(text, "    Image {{ name: {name:?}, data: b\"built without nvcc\\0\" }},").expect("memory");
            }
        }
    }
    text += "];\n";
    fs::write(out.join("images.rs"), text).expect("a writable OUT_DIR");
}

/// `$PICIE_COMMIT` of this build, for reports.
fn commit() {
    // Changes with every commit and checkout.
    for path in [".git/HEAD", ".git/logs/HEAD"].iter().filter(|path| Path::new(path).exists()) {
        println!("cargo:rerun-if-changed={path}");
    }
    let git = Command::new("git").args(["describe", "--always", "--dirty", "--exclude=*"]).output();
    let said = git.ok().filter(|out| out.status.success()).and_then(|out| String::from_utf8(out.stdout).ok());
    println!("cargo:rustc-env=PICIE_COMMIT={}", said.as_deref().map_or("unknown", str::trim));
}

/// The files of `cuda/` that end in `.ext`, in order.
fn files(ext: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir("cuda").expect("the folder cuda").flatten().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == ext));
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn jobs(out: &Path) -> Vec<Job> {
    let sources = files("cu");
    let job = |source: &PathBuf, ty: &str| {
        let stem = source.file_stem().expect("a file name").to_string_lossy();
        Job {
            name: format!("{stem}.{ty}"),
            source: source.clone(),
            define: format!("-DPICIE_ACT_{}", ty.to_uppercase()),
            fatbin: out.join(format!("{stem}.{ty}.fatbin")),
        }
    };
    sources.iter().flat_map(|source| TYPES.map(|ty| job(source, ty))).collect()
}

/// The first nvcc that answers.
fn nvcc() -> Option<PathBuf> {
    let exe = |dir: PathBuf| dir.join(format!("nvcc{}", env::consts::EXE_SUFFIX));
    let var = |name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    // NOTE: an $NVCC that does not work is a mistake to hear about, not to pass over.
    if let Some(nvcc) = var("NVCC") {
        assert!(answers(&nvcc), "$NVCC is {}, which does not run", nvcc.display());
        return Some(nvcc);
    }
    let mut places = vec![];
    places.extend(var("CUDA_HOME").map(|home| exe(home.join("bin"))));
    places.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()).map(exe));
    places.extend(site_packages().map(|site| exe(site.join("nvidia/cu13/bin"))));
    places.into_iter().find(|path| path.is_file() && answers(path))
}

fn answers(nvcc: &Path) -> bool {
    Command::new(nvcc).arg("--version").output().is_ok_and(|out| out.status.success())
}

/// Where the active Python keeps its packages.
fn site_packages() -> Option<PathBuf> {
    let ask = ["-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"];
    let out = Command::new("python3").args(ask).output().ok().filter(|out| out.status.success())?;
    Some(PathBuf::from(String::from_utf8(out.stdout).ok()?.trim()))
}

fn compile(nvcc: &Path, jobs: &[Job]) {
    let archs = env::var("PICIE_CUDA_ARCHS").unwrap_or_else(|_| ARCHS.into());
    let archs: Vec<&str> = archs.split(',').map(str::trim).filter(|a| !a.is_empty()).collect();
    let last =
        archs.last().expect("PICIE_CUDA_ARCHS names an architecture").trim_end_matches(|c: char| !c.is_ascii_digit());
    let mut flags: Vec<String> =
        ["-O3", "-std=c++17", "-lineinfo", "--fatbin", "-Xptxas", "-v"].map(String::from).into();
    for arch in &archs {
        flags.push(format!("-gencode=arch=compute_{arch},code=sm_{arch}"));
    }
    // PTX for architectures that come later.
    flags.push(format!("-gencode=arch=compute_{last},code=compute_{last}"));
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
                    if job.fatbin.exists() && fs::read_to_string(&stamped).is_ok_and(|old| old == stamp) {
                        continue;
                    }
                    let mut command = Command::new(nvcc);
                    command.args(&flags).arg(&job.define).arg(&job.source).arg("-o").arg(&job.fatbin);
                    let Output { status, stderr, stdout } = command.output().expect("nvcc ran a moment ago");
                    let said = [stdout, stderr].concat();
                    // What ptxas says of registers and spills, for who wants to know.
                    fs::write(job.fatbin.with_extension("log"), &said).expect("a writable OUT_DIR");
                    if status.success() {
                        fs::write(&stamped, &stamp).expect("a writable OUT_DIR");
                    } else {
                        let said = String::from_utf8_lossy(&said).into_owned();
                        failed.lock().expect("no thread panics").push(format!("{}: {said}", job.source.display()));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no thread panics");
    assert!(failed.is_empty(), "nvcc does not compile the kernels:\n{}", failed.join("\n"));
}
