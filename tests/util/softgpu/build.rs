//! Compiles and links the software GPU. Objects and libraries are kept by a hash of what they are
//! made from, so a second run builds nothing.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use super::Built;
use crate::util::{kernels, root, tmp};

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

/// Each access of a kernel calls `tests/softgpu/trace.cpp`. Optimised little, with structs left
/// whole, accesses are those that the source has, by any version of g++: none is split, joined,
/// vectorised or taken out of its loop's turn.
const TRACED: &[&str] = &["-fsanitize=thread", "-O1", "-fno-tree-sra"];

/// The engine's kernel files.
pub fn sources() -> Vec<PathBuf> {
    files("cuda", &["cu"])
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
    /// What is compiled: a file, or text of its own.
    source: PathBuf,
    text: Option<String>,
    /// Flags of its own.
    own: Vec<String>,
}

pub(super) struct Build {
    compiler: String,
    flags: Vec<String>,
    traced: bool,
    tmp: PathBuf,
    /// What an object may include: texts by file name.
    headers: BTreeMap<String, String>,
}

impl Build {
    pub fn new(compiler: String, built: Built) -> Self {
        let optimised = if built == Built::Sanitized { SANITIZED } else { PLAIN };
        let mut flags: Vec<String> = optimised.iter().map(|f| f.to_string()).collect();
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
        Self { compiler, flags, traced: built == Built::Traced, tmp: tmp(), headers }
    }

    /// The folder with the libraries; that of an old driver's management is in `old/`.
    pub fn run(&self) -> PathBuf {
        let objects = self.tmp.join("softgpu-objects");
        std::fs::create_dir_all(&objects).unwrap();
        // Tests of several processes may come here at once.
        let lock = std::fs::File::create(self.tmp.join("softgpu.lock")).unwrap();
        lock.lock().unwrap();

        let (mut cuda, mut cudnn, mut nvml) = (Vec::new(), Vec::new(), Vec::new());
        for source in files("tests/softgpu", &["cpp"]) {
            let name = source.file_name().unwrap().to_string_lossy();
            let (is_cudnn, is_trace) = (name.starts_with("cudnn"), name == "trace.cpp");
            if is_trace && !self.traced {
                continue;
            }
            if name == "nvml.cpp" {
                let flags = [vec![], vec!["-DNVML_OLD".to_string()]];
                nvml.extend(flags.map(|own| self.object(&objects, source.clone(), None, own)));
                continue;
            }
            let object = self.object(&objects, source.clone(), None, vec![]);
            if is_cudnn { cudnn.push(object) } else { cuda.push(object) }
        }
        for source in [sources(), files("tests/softgpu", &["cu"])].concat() {
            let mut text = format!("#include \"shim.h\"\n#include \"{}\"\n", source.display());
            for kernel in kernels::parse(&read(&source)).kernels {
                let (name, threads) = (kernel.name, kernel.threads);
                text += &format!("SOFTGPU_ENTRY(PICIE_SUFFIX({name}), {threads})\n");
            }
            // What is traced of f16 is what is of bf16: they are as wide.
            for act in &["F32", "BF16", "F16"][..if self.traced { 2 } else { 3 }] {
                let mut own = vec![format!("-DPICIE_ACT_{act}")];
                own.extend(TRACED.iter().filter(|_| self.traced).map(|f| f.to_string()));
                cuda.push(self.object(&objects, source.clone(), Some(text.clone()), own));
            }
        }
        let all = || cuda.iter().chain(&cudnn).chain(&nvml);
        let names: Vec<&Path> = all().map(|o| o.path.as_path()).collect();
        let folder = self.tmp.join(format!("softgpu-{}", hash(&names)));
        if folder.exists() {
            return folder;
        }
        self.compile(all().filter(|o| !o.path.exists()).collect());
        let new = self.tmp.join("softgpu-new");
        let _ = std::fs::remove_dir_all(&new);
        std::fs::create_dir_all(&new).unwrap();
        self.link(&new, "libcuda.so", &cuda, &["-ldl"]);
        if !cudnn.is_empty() {
            self.link(&new, "libcudnn.so", &cudnn, &["-L.", "-lcuda", "-Wl,-rpath,$ORIGIN"]);
        }
        for (folder, object) in [(new.clone(), &nvml[..1]), (new.join("old"), &nvml[1..])] {
            std::fs::create_dir_all(&folder).unwrap();
            self.link(&folder, "libnvidia-ml.so.1", object, &[]);
        }
        std::fs::rename(&new, &folder).unwrap();
        folder
    }

    fn object(
        &self,
        objects: &Path,
        source: PathBuf,
        text: Option<String>,
        own: Vec<String>,
    ) -> Object {
        let code = read(&source);
        let mut headers = BTreeMap::new();
        self.included(&format!("{code}{}", text.as_deref().unwrap_or_default()), &mut headers);
        let key = hash((&self.compiler, &self.flags, headers, code, &text, &own));
        let stem = source.file_stem().unwrap().to_string_lossy();
        Object { path: objects.join(format!("{stem}-{key}.o")), source, text, own }
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
            .args(&object.own)
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
