//! Builds the software GPU with the host's compiler and puts it in the place of the driver, where
//! the machine has no GPU.
//!
//! `tests/softgpu/*.cpp` and the kernels of `cuda/` become `libcuda.so`, `tests/softgpu/cudnn*.cpp`
//! become `libcudnn.so`. Objects and libraries are kept by a hash of what they are made from, so a
//! second run builds nothing.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use super::{kernels, root, tmp};

/// Compilers that run at once.
const JOBS: usize = 2;

const PLAIN: &[&str] = &["-O2", "-g1"];
const SANITIZED: &[&str] = &[
    "-O1",
    "-g1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
];

/// The folder with `libcuda.so` and `libcudnn.so`: for `LD_LIBRARY_PATH` of a child process. None
/// without a host compiler.
pub fn folder(sanitized: bool) -> Option<&'static Path> {
    static FOLDERS: [OnceLock<Option<PathBuf>>; 2] = [const { OnceLock::new() }; 2];
    FOLDERS[usize::from(sanitized)].get_or_init(|| find(sanitized)).as_deref()
}

/// Whether the CUDA engine can run in this process: on the machine's GPU, else on the software GPU,
/// loaded here and now.
pub fn load() -> bool {
    static LOADED: OnceLock<bool> = OnceLock::new();
    *LOADED.get_or_init(|| has_gpu() || libraries().is_some())
}

/// Whether the machine's own GPU runs the tests: it goes before the software one where the CUDA
/// engine opens on it.
pub fn has_gpu() -> bool {
    static GPU: OnceLock<bool> = OnceLock::new();
    *GPU.get_or_init(|| {
        // A process that was given a software GPU uses it.
        if !has_driver() || std::env::var_os("PICIE_SOFTGPU").is_some() {
            return false;
        }
        let verdict = probe(&[]);
        if let Err(why) = &verdict {
            eprintln!("the tests of the CUDA engine use the software GPU, as the machine's own cannot run it: {why}");
        }
        verdict.is_ok()
    })
}

/// Whether the machine has an NVIDIA driver, of whatever age.
pub fn has_driver() -> bool {
    Path::new("/dev/nvidiactl").exists()
}

/// Whether the CUDA engine opens in a process with this environment, or why not. NOTE: in another
/// process, for a driver that was opened cannot be replaced.
fn probe(env: &[(&str, &str)]) -> Result<(), String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "util::softgpu::tests::opens", "--ignored", "--nocapture"]);
    let out = command.envs(env.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    match text.lines().find_map(|line| line.strip_prefix(VERDICT)) {
        Some("") => Ok(()),
        Some(why) => Err(why.into()),
        None => Err(format!("opening it ends with {}", out.status)),
    }
}

/// What the probe's line begins with, before the reason.
const VERDICT: &str = "the CUDA engine opens: ";

/// Under AddressSanitizer a kernel that touches these bytes of device memory dies there and then;
/// nothing elsewhere.
pub fn forbid(address: u64, bytes: usize) {
    type Forbid = unsafe extern "C" fn(u64, usize);
    if let Some(libcuda) = libcuda() {
        // SAFETY: this is the function's signature (tests/softgpu/memory.cpp); the bytes are of a
        // live allocation.
        unsafe { libcuda.get::<Forbid>(b"softgpu_forbid\0").unwrap()(address, bytes) }
    }
}

/// Asynchronous copies to the device that this thread asked for so far; 0 on a GPU, which does not
/// count them.
pub fn copies_to_device() -> usize {
    type Count = unsafe extern "C" fn() -> usize;
    // SAFETY: this is the function's signature (tests/softgpu/libcuda.cpp); it reads a number.
    libcuda().map_or(0, |libcuda| unsafe {
        libcuda.get::<Count>(b"softgpu_copies_to_device\0").unwrap()()
    })
}

/// `libcuda.so` of the software GPU, loaded so that a later `dlopen("libcuda.so")` finds it by its
/// name.
pub fn libcuda() -> Option<&'static libloading::Library> {
    libraries().map(|all| &all[0])
}

/// What a process must preload to open the sanitized libraries, which its own executable knows
/// nothing of.
pub fn sanitizer() -> Option<PathBuf> {
    let out = Command::new(compiler()?).arg("-print-file-name=libasan.so").output().ok()?;
    // A compiler that has none prints the bare name.
    let path = PathBuf::from(String::from_utf8(out.stdout).ok()?.trim());
    path.is_absolute().then_some(path)
}

fn libraries() -> Option<&'static Vec<libloading::Library>> {
    static LIBRARIES: OnceLock<Option<Vec<libloading::Library>>> = OnceLock::new();
    let open = |name| {
        use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
        let path = folder(false)?.join(name);
        // SAFETY: the libraries were built from this repository's sources and only fill their
        // tables when loaded.
        path.exists()
            .then(|| unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) }.unwrap().into())
    };
    LIBRARIES
        .get_or_init(|| {
            let found: Vec<_> =
                ["libcuda.so", "libcudnn.so"].into_iter().filter_map(open).collect();
            (!found.is_empty()).then_some(found)
        })
        .as_ref()
}

fn find(sanitized: bool) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("PICIE_SOFTGPU") {
        return Some(folder.into());
    }
    let Some(compiler) = compiler() else {
        eprintln!(
            "no host C++ compiler ($CXX, g++, clang++, c++): tests of the CUDA engine are skipped"
        );
        return None;
    };
    Some(Build::new(compiler, sanitized).run())
}

/// The first C++ compiler that runs.
fn compiler() -> Option<String> {
    // Stand-ins for a driver are built for Linux alone.
    let named =
        std::env::var("CXX").ok().into_iter().chain(["g++", "clang++", "c++"].map(str::to_string));
    let runs = |c: &String| {
        Command::new(c).arg("--version").output().is_ok_and(|out| out.status.success())
    };
    if cfg!(target_os = "linux") { named.into_iter().find(runs) } else { None }
}

/// The files of `dir` that end in one of `.ext`, by name.
fn files(dir: &str, ext: &[&str]) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(root().join(dir)).into_iter().flatten().flatten().map(|e| e.path());
    let mut found: Vec<_> =
        entries.filter(|p| p.extension().is_some_and(|e| ext.iter().any(|x| *x == e))).collect();
    found.sort();
    found
}

/// The engine's kernel files.
pub fn sources() -> Vec<PathBuf> {
    files("cuda", &["cu"])
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn hash(parts: impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

struct Object {
    path: PathBuf,
    /// What is compiled, with these flags: a file, or text of its own.
    source: PathBuf,
    text: Option<String>,
    define: Option<String>,
}

struct Build {
    compiler: String,
    flags: Vec<String>,
    tmp: PathBuf,
    /// What an object may include: texts by file name.
    headers: BTreeMap<String, String>,
}

impl Build {
    fn new(compiler: String, sanitized: bool) -> Self {
        let mut flags: Vec<String> =
            if sanitized { SANITIZED } else { PLAIN }.iter().map(|f| f.to_string()).collect();
        flags
            .extend(["-std=c++17", "-fPIC", "-fvisibility=hidden", "-pthread"].map(str::to_string));
        flags.extend(
            ["-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-attributes"].map(str::to_string),
        );
        flags.push(format!("-ffile-prefix-map={}/=", root().display()));
        flags.push(format!("-I{}", root().join("tests/softgpu").display()));
        // Fused multiply-add, as a GPU has it, and conversion of eight numbers at a time.
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
            flags.extend(["-mavx2", "-mfma"].map(str::to_string));
        }
        let headers = [files("cuda", &["cuh"]), files("tests/softgpu", &["h"])].concat();
        let headers = headers
            .iter()
            .map(|p| (p.file_name().unwrap().to_string_lossy().into(), read(p)))
            .collect();
        Self { compiler, flags, tmp: tmp(), headers }
    }

    fn run(&self) -> PathBuf {
        let objects = self.tmp.join("softgpu-objects");
        std::fs::create_dir_all(&objects).unwrap();
        // Tests of several processes may come here at once.
        let lock = std::fs::File::create(self.tmp.join("softgpu.lock")).unwrap();
        lock.lock().unwrap();

        let (mut cuda, mut cudnn) = (Vec::new(), Vec::new());
        for source in files("tests/softgpu", &["cpp"]) {
            let is_cudnn = source.file_name().unwrap().to_string_lossy().starts_with("cudnn");
            let object = self.object(&objects, source, None, None);
            if is_cudnn { cudnn.push(object) } else { cuda.push(object) }
        }
        for source in [sources(), files("tests/softgpu", &["cu"])].concat() {
            let mut text = format!("#include \"shim.h\"\n#include \"{}\"\n", source.display());
            for kernel in kernels::parse(&read(&source)).kernels {
                let (name, threads) = (kernel.name, kernel.threads);
                text += &format!("SOFTGPU_ENTRY(PICIE_SUFFIX({name}), {threads})\n");
            }
            for act in ["F32", "BF16", "F16"] {
                let define = format!("-DPICIE_ACT_{act}");
                cuda.push(self.object(&objects, source.clone(), Some(text.clone()), Some(define)));
            }
        }
        let names: Vec<&Path> = cuda.iter().chain(&cudnn).map(|o| o.path.as_path()).collect();
        let folder = self.tmp.join(format!("softgpu-{}", hash(&names)));
        if folder.exists() {
            return folder;
        }
        self.compile(cuda.iter().chain(&cudnn).filter(|o| !o.path.exists()).collect());
        let new = self.tmp.join("softgpu-new");
        let _ = std::fs::remove_dir_all(&new);
        std::fs::create_dir_all(&new).unwrap();
        self.link(&new, "libcuda.so", &cuda, &["-ldl"]);
        if !cudnn.is_empty() {
            self.link(&new, "libcudnn.so", &cudnn, &["-L.", "-lcuda", "-Wl,-rpath,$ORIGIN"]);
        }
        std::fs::rename(&new, &folder).unwrap();
        folder
    }

    fn object(
        &self,
        objects: &Path,
        source: PathBuf,
        text: Option<String>,
        define: Option<String>,
    ) -> Object {
        let own = read(&source);
        let mut headers = BTreeMap::new();
        self.included(&format!("{own}{}", text.as_deref().unwrap_or_default()), &mut headers);
        let key = hash((&self.compiler, &self.flags, headers, own, &text, &define));
        let stem = source.file_stem().unwrap().to_string_lossy();
        Object { path: objects.join(format!("{stem}-{key}.o")), source, text, define }
    }

    /// The headers of this repository that `text` includes, and those that they include.
    fn included<'a>(&'a self, text: &str, found: &mut BTreeMap<&'a str, &'a str>) {
        for quoted in text.lines().filter_map(|line| line.strip_prefix("#include \"")) {
            let name = quoted.trim_end_matches('"').rsplit('/').next().unwrap();
            if let Some((name, text)) = self.headers.get_key_value(name)
                && found.insert(name, text).is_none()
            {
                self.included(text, found);
            }
        }
    }

    fn compile(&self, objects: Vec<&Object>) {
        let queue = Mutex::new(VecDeque::from(objects));
        std::thread::scope(|scope| {
            for _ in 0..JOBS {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().unwrap().pop_front();
                        let Some(object) = next else { break };
                        self.compile_one(object);
                    }
                });
            }
        });
    }

    fn compile_one(&self, object: &Object) {
        let source = match &object.text {
            Some(text) => {
                let source = object.path.with_extension("cpp");
                std::fs::write(&source, text).unwrap();
                source
            }
            None => object.source.clone(),
        };
        // NOTE: under another name first, so that an interrupted compiler leaves no object that
        // looks whole.
        let unfinished = object.path.with_extension("part");
        let mut command = Command::new(&self.compiler);
        command
            .args(&self.flags)
            .args(&object.define)
            .arg("-c")
            .arg(source)
            .arg("-o")
            .arg(&unfinished);
        run(&mut command);
        std::fs::rename(unfinished, &object.path).unwrap();
    }

    fn link(&self, folder: &Path, name: &str, objects: &[Object], more: &[&str]) {
        let mut command = Command::new(&self.compiler);
        command.current_dir(folder).args(&self.flags).args(["-shared", "-o", name]);
        command.arg(format!("-Wl,-soname,{name}")).args(objects.iter().map(|o| &o.path)).args(more);
        run(&mut command);
    }
}

fn run(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&out.stderr));
}

mod tests {
    use super::*;
    use picie::device::Dtype;
    use picie::device::cuda::{Cuda, Options};

    #[test]
    #[ignore = "run by `probe`, in a process that has no software GPU"]
    fn opens() {
        let why = Cuda::new(Options::default(), Dtype::F32)
            .map_or_else(|e| e.to_string().replace('\n', " "), |_| String::new());
        println!("\n{VERDICT}{why}");
    }

    /// The software GPU plays the machine's own.
    #[test]
    fn a_gpu_that_cannot_run_picie_is_not_counted() {
        let Some(folder) = folder(false).filter(|_| !has_driver()) else { return };
        let at = ("LD_LIBRARY_PATH", folder.to_str().unwrap());
        assert_eq!(probe(&[at]), Ok(()));
        for (env, part) in [
            (("SOFTGPU_DRIVER_VERSION", "12040"), "knows CUDA 12.4"),
            (("SOFTGPU_BAD_IMAGE", "1"), "kernels"),
            (("SOFTCUDNN_VERSION", "8907"), "cuDNN"),
            (("SOFTGPU_DEVICES", "0"), "no GPU"),
        ] {
            let why = probe(&[at, env]).unwrap_err();
            assert!(why.contains(part), "{env:?}: {why}");
        }
        assert!(probe(&[]).unwrap_err().contains("no NVIDIA driver"));
        assert!(!has_gpu(), "no driver, no GPU");
    }
}
