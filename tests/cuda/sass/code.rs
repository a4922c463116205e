//! What kernels are made of: the fatbins of this build, as cuobjdump and nvdisasm read them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::util::tmp;

/// The architecture whose code is read: what the kernels are written for first.
const ARCH: &str = "sm_90a";

/// Bytes of an access, the columns of its counts.
const WIDTHS: [usize; 5] = [16, 8, 4, 2, 1];

/// Of one kernel and type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kernel {
    pub registers: usize,
    /// Bytes of shared arrays of fixed size, and of spills.
    shared: usize,
    pub spills: usize,
    /// Threads of a block, and blocks that fit on a multiprocessor by those three.
    threads: usize,
    blocks: usize,
    /// Instructions, and those of each of [`PIPES`].
    instructions: usize,
    pipes: [usize; PIPES.len()],
    /// Accesses by width: of global memory, and of shared.
    loads: [usize; WIDTHS.len()],
    stores: [usize; WIDTHS.len()],
    near: [usize; WIDTHS.len()],
    /// Accesses of what may be either.
    pub generic: usize,
    /// Calls of slow paths: of divisions, of roots, of what overflows.
    calls: usize,
}

/// What computes, by the names of its instructions.
const PIPES: [(&str, &[&str]); 8] = [
    ("fma", &["FFMA", "FMUL", "FADD", "HFMA2", "HADD2", "HMUL2"]),
    (
        "alu",
        &[
            "IADD3",
            "IADD",
            "VIADD",
            "LOP3",
            "LOP",
            "ISETP",
            "FSETP",
            "FMNMX",
            "IMNMX",
            "VIMNMX",
            "VIADDMNMX",
            "SEL",
            "FSEL",
            "SHF",
            "LEA",
            "PRMT",
            "MOV",
            "F2FP",
            "IABS",
            "PLOP3",
            "BMSK",
            "SGXT",
            "FLO",
            "POPC",
            "BREV",
            "VOTE",
            "VOTEU",
            "ICMP",
            "CS2R",
            "P2R",
            "R2P",
            "FCHK",
            "I2FP",
            "VABSDIFF",
            "HSETP2",
            "HMNMX2",
        ],
    ),
    ("imad", &["IMAD"]),
    ("xu", &["MUFU", "I2F", "F2I", "F2F", "FRND", "I2I"]),
    ("f64", &["DADD", "DMUL", "DFMA", "DSETP", "DMNMX"]),
    ("mma", &["HMMA", "HGMMA", "IMMA", "DMMA"]),
    ("shfl", &["SHFL"]),
    ("bar", &["BAR"]),
];

impl Kernel {
    /// Counts one instruction, such as `LDG.E.U16.CONSTANT`.
    pub fn count(&mut self, op: &str) {
        let (name, rest) = op.split_once('.').unwrap_or((op, ""));
        if name == "NOP" {
            return;
        }
        self.instructions += 1;
        for (count, (_, names)) in self.pipes.iter_mut().zip(PIPES) {
            *count += usize::from(names.contains(&name));
        }
        let has = |part: &str| rest.split('.').any(|p| p == part);
        let width = match () {
            () if has("128") => 16,
            () if has("64") => 8,
            () if has("U16") || has("S16") => 2,
            () if has("U8") || has("S8") => 1,
            () => 4,
        };
        let width = WIDTHS.iter().position(|&w| w == width).unwrap();
        match name {
            "LDG" => self.loads[width] += 1,
            "STG" => self.stores[width] += 1,
            "LDS" | "STS" => self.near[width] += 1,
            // Copies past the registers, and rows of matrices of 16 bytes.
            "LDGSTS" => {
                self.loads[width] += 1;
                self.near[width] += 1;
            }
            "LDSM" | "STSM" => self.near[0] += 1,
            "LD" | "ST" => self.generic += 1,
            "CALL" => self.calls += 1,
            _ => {}
        }
    }

    pub fn pipe(&self, name: &str) -> usize {
        self.pipes[PIPES.iter().position(|(pipe, _)| *pipe == name).unwrap()]
    }

    /// Of 65,536 registers, which a warp takes by 256; 2048 threads; 32 blocks; 227 KiB of shared
    /// memory, of which a block takes 1 KiB for itself.
    fn occupancy(&self) -> usize {
        let warps = self.threads.div_ceil(32);
        let by_registers = 65_536 / (self.registers.max(1) * 32).next_multiple_of(256) / warps;
        by_registers.min(2048 / self.threads).min(32).min((227 << 10) / (self.shared + 1024))
    }

    /// Global accesses below 4 bytes.
    pub fn narrow(&self) -> usize {
        [self.loads, self.stores].iter().map(|widths| widths[3] + widths[4]).sum()
    }

    /// The table's numbers.
    pub fn line(&self) -> String {
        let widths = |widths: [usize; WIDTHS.len()]| widths.map(|w| w.to_string()).join("/");
        let Kernel { registers, shared, spills, threads, blocks, instructions, .. } = self;
        let pipes = self.pipes.map(|p| p.to_string()).join(" ");
        let accesses = [self.loads, self.stores, self.near].map(widths).join(" ");
        let Kernel { generic, calls, .. } = self;
        format!(
            "{registers} {shared} {spills} {threads} {blocks} {instructions} {pipes} {accesses} {generic} {calls}"
        )
    }
}

/// The folder of the tools: nvcc's own, where `.ci/tools` puts them too.
fn tool(name: &str) -> Option<Command> {
    let nvcc = std::env::var_os("NVCC").map(PathBuf::from);
    let beside = nvcc.and_then(|nvcc| Some(nvcc.parent()?.join(name))).filter(|p| p.is_file());
    let path = beside.unwrap_or_else(|| name.into());
    let answers = Command::new(&path).arg("--version").output().is_ok_and(|o| o.status.success());
    answers.then(|| Command::new(path))
}

/// What a tool says. NOTE: in a folder of its own, for cuobjdump writes into the current one.
fn said(tool: &mut Command, dir: &Path) -> String {
    let out = tool.current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{tool:?}\n{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Adds the kernels of a fatbin and of what ptxas said of it, by name and type.
fn read(fatbin: &Path, kernels: &mut BTreeMap<String, Kernel>) -> Option<()> {
    let dir = tempfile::tempdir_in(tmp()).unwrap();
    let mut extract = tool("cuobjdump")?;
    said(extract.args(["-xelf", ARCH]).arg(fatbin), dir.path());
    let cubin = dir.path().read_dir().unwrap().flatten().next()?.path();
    let code = said(tool("nvdisasm")?.arg(&cubin), dir.path());
    for (name, kernel) in disassembled(&code) {
        kernels.insert(name, kernel);
    }
    let log = std::fs::read_to_string(fatbin.with_extension("log")).unwrap();
    for entry in log.split("Compiling entry function '").skip(1) {
        let Some((name, rest)) = entry.split_once("' for '") else { continue };
        let (arch, rest) = rest.split_once('\'').unwrap();
        if arch != ARCH {
            continue;
        }
        let before = |what: &str| -> usize {
            let part = rest.split_once(what).map_or("0", |(part, _)| part);
            part.split_whitespace().last().unwrap().parse().unwrap()
        };
        let kernel = kernels.get_mut(&spaced(name)).unwrap();
        kernel.registers = before(" registers");
        kernel.shared = before(" bytes smem");
        kernel.spills = before(" bytes spill stores") + before(" bytes spill loads");
        kernel.blocks = kernel.occupancy();
    }
    Some(())
}

/// `norm_stats_bf16` as `norm_stats bf16`.
fn spaced(name: &str) -> String {
    let (name, dtype) = name.rsplit_once('_').unwrap();
    format!("{name} {dtype}")
}

/// The kernels in what nvdisasm prints of a cubin.
fn disassembled(code: &str) -> BTreeMap<String, Kernel> {
    let mut kernels: BTreeMap<String, Kernel> = BTreeMap::new();
    let (mut section, mut info) = ("", "");
    for line in code.lines() {
        if let Some(rest) = line.strip_prefix("//-----") {
            section = rest.trim_matches(|c: char| c == '-' || c.is_whitespace());
        } else if let Some((_, name)) = line.split_once("//----- nvinfo : ") {
            info = name.trim();
        } else if let Some(name) = section.strip_prefix(".text.") {
            // /*0290*/  @!P0 LDG.E.CONSTANT R12, desc[UR8][R12.64] ;
            let Some((_, rest)) = line.split_once("*/") else { continue };
            let words = rest.split_whitespace().filter(|w| !w.starts_with('@') && *w != "{");
            let op = words.map(|w| w.trim_end_matches(';')).next().unwrap_or_default();
            if op.starts_with(|c: char| c.is_ascii_uppercase()) {
                kernels.entry(spaced(name)).or_default().count(op);
            }
        } else if let Some(name) = section.strip_prefix(".nv.info.")
            && info == "EIATTR_MAX_THREADS"
            && let Some((_, word)) = line.split_once(".word\t0x")
        {
            let kernel = kernels.entry(spaced(name)).or_default();
            kernel.threads = kernel.threads.max(usize::from_str_radix(word.trim(), 16).unwrap());
        }
    }
    kernels
}

/// All kernels of this build by name and type. None without nvcc's output or the tools, and in a
/// process that was given a software GPU, whose parent has seen to it.
pub fn compiled() -> Option<BTreeMap<String, Kernel>> {
    if std::env::var_os("PICIE_SOFTGPU").is_some() {
        return None;
    }
    let files = Path::new(env!("OUT_DIR")).read_dir().into_iter().flatten().flatten();
    let mut fatbins: Vec<PathBuf> =
        files.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "fatbin")).collect();
    fatbins.sort();
    let kernels = Mutex::new(BTreeMap::new());
    let queue = Mutex::new(fatbins.iter());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                loop {
                    let Some(fatbin) = queue.lock().unwrap().next() else { return };
                    let mut own = BTreeMap::new();
                    if read(fatbin, &mut own).is_none() {
                        return;
                    }
                    kernels.lock().unwrap().extend(own);
                }
            });
        }
    });
    let kernels = kernels.into_inner().unwrap();
    if kernels.is_empty() {
        eprintln!("skipped: this build has no {ARCH}, or nvdisasm and cuobjdump are not at hand");
        return None;
    }
    Some(kernels)
}

#[test]
fn an_instruction_is_counted_by_its_name_and_width() {
    let code = "//--------------------- .nv.info.a_b_bf16 --------------------------
\t//----- nvinfo : EIATTR_MAX_THREADS
        /*0084*/ \t.byte\t0x04, 0x05
        /*0088*/ \t.word\t0x00000100
//--------------------- .text.a_b_bf16      --------------------------
\t.align\t128
.text.a_b_bf16:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0290*/              @!P0 LDG.E.U16.CONSTANT R12, desc[UR8][R12.64] ;
        /*02a0*/                   STG.E.128 desc[UR8][R12.64], R4 ;
        /*02b0*/                   LDS.64 R2, [R7] ;
        /*02c0*/                   ST.E desc[UR4][R2.64], R0 ;
        /*02d0*/                   FFMA R1, R2, R3, R4 ;
        /*02e0*/                   CALL.REL.NOINC `(__internal_sqrt) ;
        /*02f0*/                   NOP ;
//--------------------- .nv.shared.reserved.0 --------------------------
";
    let kernels = disassembled(code);
    let kernel = &kernels["a_b bf16"];
    let mut want = Kernel { threads: 256, instructions: 7, generic: 1, calls: 1, ..kernel.clone() };
    (want.loads, want.stores, want.near) = ([0, 0, 0, 1, 0], [1, 0, 0, 0, 0], [0, 1, 0, 0, 0]);
    want.pipes = [1, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!((kernels.len(), kernel), (1, &want));
}
