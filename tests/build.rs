//! The build script with compilers of every kind at hand: it takes the right one, and fails the
//! build for none that was not asked for.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The build script as a program of its own.
fn script() -> &'static Path {
    static SCRIPT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let make = || {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("build-script");
        let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
        assert!(
            Command::new(rustc)
                .args(["--edition", "2024", "-o"])
                .arg(&to)
                .arg(source)
                .status()
                .unwrap()
                .success()
        );
        (dir, to)
    };
    &SCRIPT.get_or_init(make).1
}

/// An nvcc of `version` in `folder`, which knows `archs`; with `fatal` it compiles nothing and says
/// that.
fn nvcc(folder: &Path, version: &str, archs: &str, fatal: Option<&str>) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    let list = archs.split(' ').map(|arch| format!("echo compute_{arch};")).collect::<String>();
    let compile = match fatal {
        Some(said) => format!("echo '{said}' >&2; exit 1"),
        // The last argument is the output; an architecture that is not known is an error, as nvcc's
        // is.
        None => format!(
            "for a; do case \"$a\" in -gencode=*) n=${{a#*compute_}}; n=${{n%%,*}}; n=${{n%a}}; case \" {archs} \" in *\" $n \"*) ;; \
             *) echo \"nvcc fatal : Unsupported gpu architecture '$n'\" >&2; exit 1 ;; esac ;; esac; out=$a; done; echo \"$0\" > \"$out\""
        ),
    };
    let text = format!(
        "#!/bin/sh\ncase \"$1\" in --version) echo 'Cuda compilation tools, release {version}, V{version}.99' ;; \
         --list-gpu-arch) {list} ;; *) {compile} ;; esac\n"
    );
    let path = folder.join("nvcc");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

struct Built {
    ran: Output,
    out: tempfile::TempDir,
}

impl Built {
    /// Builds with these variables, and `folders` before the system's programs in PATH.
    fn with(folders: &[&Path], variables: &[(&str, &Path)]) -> Self {
        let out = tempfile::tempdir().unwrap();
        let folders =
            folders.iter().map(|f| f.to_path_buf()).chain(["/usr/bin".into(), "/bin".into()]);
        let mut command = Command::new(script());
        command.current_dir(env!("CARGO_MANIFEST_DIR")).env("OUT_DIR", out.path());
        command.env("PATH", std::env::join_paths(folders).unwrap());
        for name in ["NVCC", "CUDA_HOME", "VIRTUAL_ENV", "PICIE_CUDA_ARCHS", "PICIE_CUDA_WERROR"] {
            command.env_remove(name);
        }
        command.envs(variables.iter().copied());
        Built { ran: command.output().unwrap(), out }
    }

    /// What the binary would include, and what cargo would show.
    #[track_caller]
    fn succeeds(&self) -> (String, String) {
        assert!(self.ran.status.success(), "{:?}", self.ran);
        let images = std::fs::read_to_string(self.out.path().join("images.rs")).unwrap();
        (images, String::from_utf8(self.ran.stdout.clone()).unwrap())
    }

    /// Which nvcc wrote the kernels.
    fn compiler(&self) -> PathBuf {
        std::fs::read_to_string(self.out.path().join("norm.bf16.fatbin")).unwrap().trim().into()
    }
}

const OLD: &str = "80 86 89 90";
const NEW: &str = "80 86 89 90 100 120";

#[test]
fn an_older_nvcc_is_taken_only_where_there_is_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second, home] = ["first", "second", "home"].map(|name| dir.path().join(name));
    let old = nvcc(&first, "12.4", OLD, None);
    let new = nvcc(&second, "13.0", NEW, None);
    let built = Built::with(&[&first, &second], &[]);
    built.succeeds();
    assert_eq!(built.compiler(), new);
    let in_home = nvcc(&home.join("bin"), "13.1", NEW, None);
    let built = Built::with(&[&first, &second], &[("CUDA_HOME", &home)]);
    built.succeeds();
    assert_eq!(built.compiler(), in_home);
    // $NVCC is what was asked for, whatever its version.
    let built = Built::with(&[&second], &[("NVCC", &old)]);
    let (images, shown) = built.succeeds();
    assert_eq!(built.compiler(), old);
    assert!(images.contains("MISSING_KERNELS: Option<&str> = None"), "{images}");
    let warning = shown.lines().find(|l| l.starts_with("cargo:warning=")).unwrap();
    assert!(warning.contains("12.4") && warning.contains("sm_100, sm_120"), "{warning}");
    assert_eq!(shown.matches("cargo:warning=").count(), 1);
}

#[test]
fn an_nvcc_that_compiles_nothing_costs_the_kernels_and_not_the_build() {
    let dir = tempfile::tempdir().unwrap();
    let broken = nvcc(dir.path(), "13.0", NEW, Some("nvcc fatal : no host compiler"));
    let (images, shown) = Built::with(&[dir.path()], &[]).succeeds();
    for part in [broken.to_str().unwrap(), "version 13.0", "no host compiler"] {
        let missing = images.lines().find(|l| l.contains("MISSING_KERNELS")).unwrap();
        assert!(missing.contains(part), "{part} is not in {missing}");
    }
    assert!(
        shown.contains("cargo:warning=no kernels: ") && !images.contains("include_bytes"),
        "{shown}{images}"
    );
    let asked = Built::with(&[], &[("NVCC", &broken)]).ran;
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(
        !asked.status.success() && said.contains("no host compiler") && said.contains("$NVCC is"),
        "{said}"
    );
    let gone = Built::with(&[], &[("NVCC", &dir.path().join("gone"))]).ran;
    assert!(String::from_utf8_lossy(&gone.stderr).contains("which does not run"), "{gone:?}");
}

#[test]
fn a_machine_without_nvcc_builds() {
    let (images, _) = Built::with(&[], &[]).succeeds();
    assert!(images.contains("Some(\"built without nvcc\")"), "{images}");
}

/// What build.rs writes for a folder `cuda` with these files, or what it says.
fn generated(files: &[(&str, &str)]) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("cuda")).unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join("cuda").join(name), text).unwrap();
    }
    let mut command = Command::new(script());
    command.current_dir(dir.path()).env_clear();
    let ran = command.env("OUT_DIR", dir.path()).env("PATH", "").output().unwrap();
    match ran.status.success() {
        true => Ok(std::fs::read_to_string(dir.path().join("kernels.rs")).unwrap()),
        false => Err(String::from_utf8_lossy(&ran.stderr).into_owned()),
    }
}

#[test]
fn launchers_are_typed_by_what_kernels_take() {
    let header = "constexpr int D = 4, E = D << 1;  // constexpr int F = 1;\n\
                  constexpr unsigned NOWHERE = 0xffu;\n\
                  constexpr float EPS = 1e-5f;\nstruct Place {\n    int row;\n};\n\
                  struct Pair {\n    const float *a, *b;\n    Place at[D];\n    bool both;\n};\n";
    let source = "#include \"some.cuh\"\n#define KERNEL(name, threads) \\\nKERNEL(none, 1)()\n\
                  constexpr int BYTES = D * sizeof(float);\n\
                  KERNEL(some_thing, E, 4)\n(act* __restrict__ out, Maybe<const unsigned char> from,\n \
                  const Pair pair, size_t len, bool on) {\n    constexpr int inner = 3;\n}\n";
    let text = generated(&[("some.cuh", header), ("some_thing.cu", source)]).unwrap();
    for part in [
        "pub struct SomeThing {",
        "pub out: Slot<Act>,",
        "pub from: Option<Slot<u8>>,",
        "pub pair: Pair,",
        "pub len: usize,",
        "pub on: bool,",
        "const INDEX: usize = 0;",
        "use consts::some_thing::*;\n        E\n",
        "pub a: Slot<f32>,\n    pub b: Slot<f32>,\n    pub at: [Place; consts::some_thing::D],",
        "pub const E: usize = D << 1;",
        "pub const NOWHERE: usize = 0xff;",
        "pub const BYTES: usize = D * size_of::<f32>();",
        "[(&str, &str); 1] = [\n    (\"some_thing\", \"some_thing\"),\n]",
    ] {
        let part = part.replace("pub struct", "pub(super) struct");
        assert!(text.contains(&part), "{part} is not in\n{text}");
    }
    for part in ["EPS", "inner", "F:", "None {"] {
        assert!(!text.contains(part), "{part} is in\n{text}");
    }
}

#[test]
fn what_no_launcher_could_pass_ends_the_build() {
    for (head, part) in [
        ("KERNEL(some_thing, 32)(long long n) {}", "`long long n` is not understood"),
        ("KERNEL(some_thing, 32)(double x) {}", "takes double by value"),
        ("KERNEL(some_thing, 32)(Unknown x) {}", "takes Unknown by value"),
        ("KERNEL(some_thing)(int n) {}", "no entry: KERNEL(some_thing)(int n)"),
    ] {
        let said = generated(&[("some.cu", &format!("\n{head}\n"))]).unwrap_err();
        assert!(said.contains(part), "{said}");
    }
}
