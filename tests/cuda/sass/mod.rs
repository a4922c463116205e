//! What the machine code of each kernel is made of, where this build had nvcc and nvdisasm and
//! cuobjdump are at hand: rules that no kernel may break, and `cuda/sass.txt`.

mod code;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use code::{Kernel, compiled};

/// More instructions than recorded that pass.
const SLACK: f64 = 1.02;

/// Kernels that spill registers, and why that is borne.
const SPILLS: [(&str, &str); 0] = [];

/// Kernels that read or write single numbers below 4 bytes in global memory, and why that is right.
/// All others move maps, by vectors.
const NARROW: [(&str, &str); 21] = [
    ("adam_step", "the last parameters, fewer than a vector"),
    ("adam_sync", "the last parameters, fewer than a vector"),
    ("confusion_global", "the last pixels, fewer than a vector"),
    ("confusion_shared", "the last pixels, fewer than a vector"),
    ("head_assign", "a label a pixel"),
    ("head_loss", "a label a pixel"),
    ("head_loss_any", "a label a pixel"),
    ("head_predict", "a label a pixel"),
    ("head_weigh", "a label a pixel"),
    ("norm_apply", "a byte of the mask for eight channels"),
    ("norm_backward_apply_two", "as norm_apply"),
    ("norm_backward_reduce", "as norm_apply"),
    ("norm_backward_reduce_two", "as norm_apply"),
    ("norm_finalize", "a pixel of each channel, to shift the sums by"),
    ("norm_fold", "weights of any number"),
    ("softmax_loss_row", "a label a pixel"),
    ("softmax_loss_tile", "a label a pixel"),
    ("softmax_weigh", "a label a pixel"),
    ("view_grey", "bytes of images"),
    ("view_render", "bytes of images"),
    ("view_sobel", "greys, one of the eight channels of a pixel"),
];

/// Kernels whose pointers may be of shared or of global memory, which the compiler cannot tell, and
/// why.
const GENERIC: [(&str, &str); 0] = [];

/// Kernels whose heads promise tensor cores in 16-bit types.
const TENSOR_CORES: [&str; 11] = [
    "conv_image",
    "conv_image_weight",
    "head_accumulate",
    "head_assign",
    "head_loss",
    "head_scores",
    "head_scores_backward",
    "head_scores_weight",
    "iic_grad",
    "iic_lags",
    "kmeans_accumulate",
];

/// The columns of the table behind kernel and type.
const COLUMNS: &str = "registers shared spills threads blocks instructions fma alu imad xu f64 \
    mma shfl bar loads stores shared_accesses generic calls";

fn table() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda/sass.txt")
}

/// The rules that `name` breaks.
fn broken(name: &str, kernel: &Kernel) -> Vec<String> {
    let (stem, dtype) = name.split_once(' ').unwrap();
    let mut wrong = Vec::new();
    let mut rule = |breaks: bool, what: String| {
        if breaks {
            wrong.push(format!("{name} {what}"));
        }
    };
    let excused = |list: &[(&str, &str)]| list.iter().any(|(kernel, _)| *kernel == stem);
    let Kernel { spills, generic, .. } = *kernel;
    rule(spills > 0 && !excused(&SPILLS), format!("spills {spills} bytes"));
    let what = format!("has {generic} accesses of shared or global memory");
    rule(generic > 0 && !excused(&GENERIC), what);
    if dtype != "f32" {
        let narrow = kernel.narrow();
        let what = format!("has {narrow} global accesses below 4 bytes");
        rule(narrow > 0 && !excused(&NARROW), what);
        let tensor = TENSOR_CORES.contains(&stem) && kernel.pipe("mma") == 0;
        rule(tensor, "has no instruction of tensor cores, which its head promises".into());
    }
    wrong
}

/// What is worse than recorded in a line of the table.
fn worse(name: &str, new: &str, old: &str) -> Vec<String> {
    let columns: Vec<&str> = COLUMNS.split_whitespace().collect();
    let columns = columns.iter().zip(new.split(' ')).zip(old.split(' '));
    let number = |word: &str| word.parse::<f64>().unwrap_or(f64::NAN);
    let narrow = |word: &str| word.split('/').skip(3).map(number).sum::<f64>();
    let mut wrong = Vec::new();
    for ((column, new), old) in columns {
        let (is, was) = (number(new), number(old));
        let worse = match *column {
            "registers" | "shared" | "spills" | "generic" | "calls" => is > was,
            "instructions" => is > SLACK * was,
            "blocks" | "mma" => is < was,
            // Below 4 bytes.
            "loads" | "stores" => narrow(new) > narrow(old),
            // They follow from others, or are read by people.
            _ => false,
        };
        if worse {
            wrong.push(format!("{name} has {new} {column}; recorded are {old}"));
        }
    }
    wrong
}

#[test]
fn machine_code_keeps_the_rules_and_is_no_worse_than_recorded() {
    let Some(compiled) = compiled() else { return };
    let text = std::fs::read_to_string(table()).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let recorded: BTreeMap<String, &str> = lines
        .map(|line| {
            let (kernel, rest) = line.split_once(' ').unwrap();
            let (dtype, numbers) = rest.split_once(' ').unwrap();
            (format!("{kernel} {dtype}"), numbers)
        })
        .collect();
    let mut wrong = Vec::new();
    for (name, kernel) in &compiled {
        wrong.extend(broken(name, kernel));
        let line = kernel.line();
        match recorded.get(name) {
            Some(old) => wrong.extend(worse(name, &line, old)),
            None => wrong.push(format!("{name} {line} is not recorded")),
        }
    }
    let gone = recorded.keys().filter(|name| !compiled.contains_key(*name));
    wrong.extend(gone.map(|name| format!("{name} is gone")));
    // An exception that no kernel needs hides the next mistake.
    let mut idle = |list: &str, exceptions: &[(&str, &str)], has: fn(&Kernel) -> usize| {
        for (stem, _) in exceptions {
            let needs = |(name, kernel): (&String, &Kernel)| {
                name.split(' ').next() == Some(stem) && has(kernel) > 0
            };
            if !compiled.iter().any(needs) {
                wrong.push(format!("{stem} needs no exception of {list} any more"));
            }
        }
    };
    idle("SPILLS", &SPILLS, |kernel| kernel.spills);
    idle("NARROW", &NARROW, Kernel::narrow);
    idle("GENERIC", &GENERIC, |kernel| kernel.generic);
    assert!(
        wrong.is_empty(),
        "mend the kernel, or run `.ci/rewrite sass` where that is meant:\n{}",
        wrong.join("\n")
    );
}

/// What `.ci/rewrite sass` runs: the table of this build, under the comments that stand there.
#[test]
#[ignore = "writes cuda/sass.txt"]
fn rewrite() {
    let compiled = compiled().expect("kernels, nvdisasm and cuobjdump");
    let old = std::fs::read_to_string(table()).unwrap();
    let mut text = String::new();
    for comment in old.lines().filter(|line| line.starts_with('#')) {
        writeln!(text, "{comment}").unwrap();
    }
    for (name, kernel) in compiled {
        writeln!(text, "{name} {}", kernel.line()).unwrap();
    }
    std::fs::write(table(), text).unwrap();
}

#[test]
fn what_breaks_a_rule_is_seen() {
    let counted = |op: &str| {
        let mut kernel = Kernel::default();
        kernel.count(op);
        kernel
    };
    let seen = |name: &str, kernel: &Kernel, part: &str| {
        let said = broken(name, kernel);
        said.len() == 1 && said[0].contains(part)
    };
    let mut spilled = counted("FFMA");
    spilled.spills = 8;
    assert!(seen("a_b bf16", &spilled, "spills 8 bytes"));
    assert!(seen("a_b f16", &counted("ST.E.128"), "has 1 accesses of shared or global"));
    assert!(seen("a_b f16", &counted("STG.E.U16"), "has 1 global accesses below 4 bytes"));
    assert!(broken("a_b f32", &counted("STG.E.U16")).is_empty());
    assert!(broken("a_b bf16", &counted("LDG.E.128.CONSTANT")).is_empty());
}

#[test]
fn a_line_that_got_worse_is_seen() {
    let old = "39 0 0 256 6 1000 1 1 1 1 1 2 1 1 1/0/2/1/0 0/0/0/0/0 0/0/0/0/0 0 1";
    let worse = |column: usize, number: &str| {
        let mut words: Vec<&str> = old.split(' ').collect();
        words[column] = number;
        !worse("a", &words.join(" "), old).is_empty()
    };
    assert!(!worse(0, "38") && worse(0, "40"), "registers");
    assert!(worse(1, "4") && worse(2, "4") && worse(18, "2"), "shared, spills, calls");
    assert!(worse(4, "5") && !worse(4, "7"), "blocks");
    assert!(!worse(5, "1010") && worse(5, "1030"), "instructions");
    assert!(worse(11, "0") && !worse(11, "3") && !worse(6, "9"), "mma, and fma");
    assert!(!worse(14, "9/9/9/1/0") && worse(14, "1/0/2/1/1"), "loads below 4 bytes");
}
