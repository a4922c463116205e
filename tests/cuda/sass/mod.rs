//! What the machine code of each kernel is made of, where this build had nvcc and nvdisasm and
//! cuobjdump are at hand: rules that no kernel may break, and `cuda/sass.txt`.

mod code;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use code::{Kernel, compiled};

/// More instructions than recorded that pass.
const SLACK: f64 = 1.02;

/// Kernels that read or write single numbers below 4 bytes in global memory, and why that is right.
/// All others move maps, by vectors.
const NARROW: [(&str, &str); 18] = [
    ("adam_step", "the last parameters, fewer than a vector"),
    ("adam_sync", "the last parameters, fewer than a vector"),
    ("confusion_global", "the last pixels, fewer than a vector"),
    ("confusion_shared", "the last pixels, fewer than a vector"),
    ("head_assign", "a label a pixel"),
    ("head_loss", "labels; and gradients, of which lanes store a channel each"),
    ("head_predict", "a label a pixel"),
    ("head_scores_backward", "gradients, of which lanes store a channel each"),
    ("head_unwarp", "gradients, of which lanes store a channel each"),
    ("head_weigh", "a label a pixel"),
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
const GENERIC: [(&str, &str); 2] = [
    ("head_accumulate", "sums lie in shared memory, or not, as `near` says"),
    ("kmeans_accumulate", "sums lie in shared memory, or not, as `near` says"),
];

/// Kernels whose heads promise tensor cores in 16-bit types.
const TENSOR_CORES: [&str; 0] = [];

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
    rule(kernel.spills > 0, format!("spills {} bytes", kernel.spills));
    let excused = GENERIC.iter().any(|(kernel, _)| *kernel == stem);
    let generic = kernel.generic;
    rule(generic > 0 && !excused, format!("has {generic} accesses of shared or global memory"));
    if dtype != "f32" {
        let excused = NARROW.iter().any(|(kernel, _)| *kernel == stem);
        let narrow = kernel.narrow();
        rule(narrow > 0 && !excused, format!("has {narrow} global accesses below 4 bytes"));
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
    let of = |stem: &str, has: fn(&Kernel) -> usize| {
        let mut own = compiled.iter().filter(|(name, _)| name.split(' ').next() == Some(stem));
        own.any(|(_, kernel)| has(kernel) > 0)
    };
    let idle = NARROW.iter().filter(|(stem, _)| !of(stem, Kernel::narrow));
    wrong.extend(idle.map(|(stem, _)| format!("{stem} needs no exception of NARROW any more")));
    let idle = GENERIC.iter().filter(|(stem, _)| !of(stem, |kernel| kernel.generic));
    wrong.extend(idle.map(|(stem, _)| format!("{stem} needs no exception of GENERIC any more")));
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
