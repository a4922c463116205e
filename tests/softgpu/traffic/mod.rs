//! What each kernel asks of memory, held by `cuda/traffic.txt`: calls of all ops on the software
//! GPU whose kernels count their accesses (`trace.cpp`).
//!
//! The numbers are those of the source and of the calls of [`cases`], not of the machine: threads
//! run in one order, addresses count from the start of an allocation. How g++ optimises changes
//! few of them (`tests/util/softgpu/build.rs`); what is worse by less than [`SLACK`] passes.

mod cases;
mod head;
mod seen;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;

use picie::device::Dtype;
use seen::{Kernel, Sum, measured};

use super::gpu::Arg::At;
use super::gpu::{Code, Gpu};
use crate::util::{Rig, kernels, root, softgpu};

/// Another version of g++ may drop or keep a request in fifty; what is worth mending is more.
const SLACK: f64 = 1.02;

/// Kernels that nothing launches in f32, where the copy of the weights is the weights themselves,
/// all gradients of weights are wide, images are convolved by cuDNN, and features are not products.
const NO_F32: [&str; 5] =
    ["adam_sync", "conv_add_weight", "conv_image", "conv_image_weight", "head_taps"];

/// What counts as near the fewest sectors and wavefronts.
const NEAR: f64 = 1.25;

/// Kernels that take more sectors or wavefronts than that, and why it is borne.
const EXPLAINED: [(&str, &str); 32] = [
    ("confusion_global", "counters of whatever classes pixels have"),
    ("confusion_shared", "counters of whatever classes pixels have"),
    ("conv_add", "f32: a lane's 32 bytes are two accesses to the same sector"),
    ("conv_bias_partial", "the sums of a block, which nvcc stores by vectors; f32 as conv_add"),
    ("conv_epilogue", "as conv_add"),
    ("head_adjoint", "f32: as conv_add, and the rows of four lanes are 128 bytes each"),
    ("head_losses", "an image's targets lie side by side; one number a tile"),
    ("head_predict", "the scores of a few classes at the corners of a pixel"),
    ("head_scores_backward", "f32: two slopes at once, of pixels a number of classes apart"),
    ("head_taps", "weights of a pixel each, by words: an eighth of what its op moves"),
    ("head_weigh", "the weight of each label"),
    ("iic_grad", "rows of any number of classes, which begin anywhere"),
    ("iic_grad_edge", "rows of any number of classes, which begin anywhere"),
    ("iic_lags", "rows of any number of classes; sums across them, once a tile"),
    ("iic_lags_edge", "rows of any number of classes; sums across them, once a tile"),
    ("iic_mutual", "matrices by columns, of a few classes"),
    ("norm_apply", "as conv_add"),
    ("norm_backward_apply", "as conv_add"),
    ("norm_backward_apply_two", "as conv_add"),
    ("norm_backward_finalize", "four channels of the sums of all blocks; latency bounds it"),
    ("norm_backward_reduce", "as conv_bias_partial"),
    ("norm_backward_reduce_two", "as conv_bias_partial"),
    ("norm_finalize", "as norm_backward_finalize"),
    ("norm_stats", "as conv_bias_partial"),
    ("softmax_weigh", "the weight of each label"),
    ("stem_backward_apply", "as conv_add"),
    ("stem_infer", "as conv_add"),
    ("stem_pool", "as conv_add"),
    ("top_part", "a query each of a pixel's scores; an evaluation has a few queries"),
    ("view_grey", "three words a lane, of sectors that neighbors share"),
    ("view_render", "single bytes, three apart, of sectors that neighbors share"),
    ("view_sobel", "a few of a pixel's eight channels"),
];

/// The numbers of a line, as the table's head says what they are. More is worse, but of lanes.
const COLUMNS: [&str; 6] = ["sectors", "wavefronts", "once", "asked", "near", "lanes"];

/// Bytes of a sector, and of a wavefront.
const SECTOR: f64 = 32.0;
const WAVEFRONT: f64 = 128.0;

type Numbers = [Option<f64>; COLUMNS.len()];

fn numbers(kernel: &Kernel) -> Numbers {
    let [far, near] = [false, true].map(|shared| kernel.sum(|site| site.shared == shared));
    let over = |a: f64, b: f64| (a > 0.0 && b > 0.0).then(|| a / b);
    [
        over(far.parts, far.ideal),
        over(near.parts, near.ideal),
        over(kernel.once, kernel.stated),
        over(SECTOR * far.parts, kernel.stated),
        over(WAVEFRONT * near.parts, kernel.stated),
        over(far.lanes + near.lanes, far.requests + near.requests),
    ]
}

/// How much worse `got` is than `recorded` in a column: above 1.
fn worse(column: usize, got: Option<f64>, recorded: Option<f64>) -> f64 {
    match (got, recorded) {
        (None, _) => 1.0,
        (Some(_), None) => f64::INFINITY,
        // Half of a last digit of the table.
        (Some(got), Some(recorded)) if COLUMNS[column] == "lanes" => (recorded - 0.05) / got,
        (Some(got), Some(recorded)) => got / (recorded + 0.0005),
    }
}

fn line(name: &str, numbers: &Numbers) -> String {
    let mut line = name.to_string();
    for (number, column) in numbers.iter().zip(COLUMNS) {
        let digits = if column == "lanes" { 1 } else { 3 };
        match number {
            Some(number) => write!(line, " {number:.digits$}").unwrap(),
            None => line += " -",
        }
    }
    line
}

fn table() -> PathBuf {
    root().join("cuda/traffic.txt")
}

/// The table's lines by kernel and type.
fn recorded(text: &str) -> BTreeMap<String, Numbers> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |i: usize| words.get(2 + i).and_then(|word| word.parse().ok());
        (words[..2].join(" "), std::array::from_fn(number))
    };
    text.lines().filter(|line| !line.starts_with('#')).map(line).collect()
}

/// The source line that loses most in a column.
fn worst(kernel: &Kernel, column: usize) -> String {
    let lost = |s: &Sum| match COLUMNS[column] {
        "lanes" => 32.0 * s.requests - s.lanes,
        "sectors" | "wavefronts" => s.parts - s.ideal,
        _ => s.parts,
    };
    let rows = kernel.by_line(|site| match COLUMNS[column] {
        "lanes" => true,
        "wavefronts" | "near" => site.shared,
        _ => !site.shared,
    });
    let row = rows.into_iter().max_by(|a, b| lost(&a.1).total_cmp(&lost(&b.1)));
    row.map_or_else(|| "no line".into(), |(at, sum)| format!("{at}: {sum}"))
}

/// Every kernel of every type that is traced.
fn all() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for source in softgpu::sources() {
        for kernel in kernels::parse(&std::fs::read_to_string(&source).unwrap()).kernels {
            names.insert(format!("{} bf16", kernel.name));
            if !NO_F32.contains(&&*kernel.name) {
                names.insert(format!("{} f32", kernel.name));
            }
        }
    }
    names
}

/// What is wrong with what was measured, by the table.
fn wrong(measured: &BTreeMap<String, Kernel>, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let recorded = recorded(text);
    for (name, kernel) in measured {
        let Some(old) = recorded.get(name) else {
            wrong.push(format!("{} is not recorded", line(name, &numbers(kernel))));
            continue;
        };
        let new = numbers(kernel);
        for (i, column) in COLUMNS.iter().enumerate() {
            if worse(i, new[i], old[i]) > SLACK {
                let [new, old] = [line(name, &new), line(name, old)];
                let worst = worst(kernel, i);
                wrong.push(format!("{new} has worse {column} than {old}: worst is {worst}"));
            }
        }
    }
    wrong.extend(
        all()
            .iter()
            .filter(|n| !measured.contains_key(*n))
            .map(|name| format!("{name} is launched by no call of tests/softgpu/traffic/cases.rs")),
    );
    let far = |kernel: &Kernel| numbers(kernel)[..2].iter().flatten().any(|&over| over > NEAR);
    let far: BTreeSet<&str> = measured
        .iter()
        .filter(|(_, kernel)| far(kernel))
        .filter_map(|(name, _)| name.split(' ').next())
        .collect();
    let explained: BTreeSet<&str> = EXPLAINED.iter().map(|(kernel, _)| *kernel).collect();
    wrong.extend(far.difference(&explained).map(|name| format!("{name} is over {NEAR} of ideal")));
    wrong.extend(explained.difference(&far).map(|name| format!("{name} needs no explanation")));
    let gone = recorded.keys().filter(|name| !measured.contains_key(*name));
    wrong.extend(gone.map(|name| format!("{name} is gone")));
    wrong
}

#[test]
fn kernels_ask_no_more_of_memory_than_recorded() {
    let Some(mut measured) = measured() else { return };
    let counted = measured.remove("faults_traffic f32").unwrap();
    let (stated, sectors, wavefronts) = (36.0 * SECTOR, 37.0, 38.0);
    let asked = [sectors * SECTOR / stated, wavefronts * WAVEFRONT / stated];
    let want = [sectors / 9.0, wavefronts / 7.0, 1.0, asked[0], asked[1], 176.0 / 7.0];
    assert_eq!(numbers(&counted), want.map(Some));
    let worst = worst(&counted, 1);
    assert!(worst.contains("faults.cu:") && worst.contains("32.00 a request"), "{worst}");
    let wrong = wrong(&measured, &std::fs::read_to_string(table()).unwrap());
    assert!(
        wrong.is_empty(),
        "mend the kernel, or run `.ci/rewrite traffic` where that is meant:\n{}",
        wrong.join("\n")
    );
}

/// What `.ci/rewrite traffic` runs: the table anew, under the comments that stand there; and the
/// lines of each kernel that lose most.
#[test]
#[ignore = "writes cuda/traffic.txt"]
fn rewrite() {
    let mut measured = measured().expect("the software GPU, by g++");
    measured.remove("faults_traffic f32");
    let old = std::fs::read_to_string(table()).unwrap();
    let mut text = String::new();
    for comment in old.lines().filter(|line| line.starts_with('#')) {
        writeln!(text, "{comment}").unwrap();
    }
    for (name, kernel) in &measured {
        let line = line(name, &numbers(kernel));
        writeln!(text, "{line}").unwrap();
        println!("\n{line}");
        for (shared, what) in [(false, "sectors"), (true, "wavefronts")] {
            let mut rows = kernel.by_line(|site| site.shared == shared);
            rows.sort_by(|a, b| b.1.parts.total_cmp(&a.1.parts));
            let total: f64 = rows.iter().map(|row| row.1.parts).sum();
            for (at, sum) in rows.iter().take(4) {
                println!("  {:5.1} % of {what}: {at}: {sum}", 100.0 * sum.parts / total);
            }
        }
    }
    std::fs::write(table(), text).unwrap();
}

/// What [`measured`] runs, in a process that has the traced software GPU: every call, and what was
/// seen of it.
#[test]
#[ignore = "run by `measured`, in a process that has the traced software GPU"]
fn calls() {
    let name = std::env::var(seen::DTYPE).unwrap();
    let dtype = Dtype::ALL.into_iter().find(|dtype| dtype.name() == name).unwrap();
    if dtype == Dtype::F32 {
        let mut gpu = Gpu::new().unwrap();
        let (out, x) = (gpu.empty::<f32>(8), gpu.input(&[1f32; 1024]));
        assert_eq!(gpu.launch("faults_traffic_f32", 1, 32, &[At(out), At(x)]), Code::CUDA_SUCCESS);
        assert_eq!(gpu.synchronize(), Code::CUDA_SUCCESS);
        // Sectors of 32 bytes: 35 that are read, one of them twice, and one that is written.
        println!("\nstated {}\n{}", 36 * 32, softgpu::traffic());
    }
    cases::each(&mut |case| {
        let said = std::cell::RefCell::new(String::new());
        case.run_by(Rig::cuda(dtype).unwrap(), |dev, call| {
            softgpu::traffic();
            dev.start_trace()?;
            call(dev)?;
            let traced = dev.take_trace()?;
            let ops = traced.calls.iter().filter(|call| !call.host);
            let stated: f64 = ops.map(|call| call.work.bytes).sum();
            said.replace(format!("stated {stated}\n{}", softgpu::traffic()));
            Ok(())
        });
        println!("\n{}", said.borrow());
    });
}

#[test]
fn a_line_that_got_worse_is_seen() {
    let text = "# a comment\na bf16 1.500 - 0.970 3.000 - 32.0\n";
    let [old, better, sectors, shared, once, lanes] = [
        [Some(1.5), None, Some(0.97), Some(3.0), None, Some(32.0)],
        [Some(1.2), None, Some(0.9), Some(2.0), None, Some(32.0)],
        [Some(1.6), None, Some(0.97), Some(3.2), None, Some(32.0)],
        [Some(1.5), Some(1.0), Some(0.97), Some(3.0), Some(1.0), Some(32.0)],
        [Some(1.5), None, Some(1.1), Some(3.0), None, Some(32.0)],
        [Some(1.5), None, Some(0.97), Some(3.0), None, Some(30.0)],
    ];
    assert_eq!(recorded(text), BTreeMap::from([("a bf16".to_string(), old)]));
    assert_eq!(line("a bf16", &old), text.lines().nth(1).unwrap());
    let worse = |new: Numbers| -> Vec<&str> {
        let columns = COLUMNS.iter().enumerate();
        columns.filter(|&(i, _)| worse(i, new[i], old[i]) > SLACK).map(|(_, &name)| name).collect()
    };
    assert!(worse(old).is_empty() && worse(better).is_empty());
    assert_eq!(worse(sectors), ["sectors", "asked"]);
    assert_eq!(worse(shared), ["wavefronts", "near"]);
    assert_eq!(worse(once), ["once"]);
    assert_eq!(worse(lanes), ["lanes"]);
}
