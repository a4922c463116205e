//! The comparison of a report with an older one.

use std::path::Path;

use serde_json::Value;

use crate::base::{Error, Result};
use crate::report::bench::{BenchReport, Compared, Comparison, SCHEMA};

/// Reads a report that `picie bench --json` printed.
pub fn read(path: &Path) -> Result<BenchReport> {
    let text =
        std::fs::read_to_string(path).map_err(|e| Error::io(path.display().to_string(), e))?;
    let no_report = |why: String| {
        Error::input(format!("{}: {why}", path.display()), "give what picie bench --json printed")
    };
    let value: Value =
        serde_json::from_str(text.trim()).map_err(|e| no_report(format!("not a report: {e}")))?;
    let schema = value["schema"].as_u64();
    if schema != Some(u64::from(SCHEMA)) {
        let has = schema.map_or("has no schema".into(), |s| format!("has schema {s}"));
        return Err(no_report(format!("{has}, and this picie reads {SCHEMA}")));
    }
    let report: BenchReport =
        serde_json::from_value(value).map_err(|e| no_report(format!("not a report: {e}")))?;
    let samples = report.phases.iter().map(|phase| &phase.samples_s);
    let samples = samples.chain(report.ops.iter().map(|op| &op.epochs_us));
    if report.phases.is_empty() || samples.into_iter().any(Vec::is_empty) {
        return Err(no_report("not a report: it has no samples".into()));
    }
    Ok(report)
}

/// Compares `new` with the report `old` of the file `path`. Refuses reports whose times must
/// differ, unless `anyway`.
pub fn compare(
    old: &BenchReport,
    new: &BenchReport,
    path: &Path,
    anyway: bool,
) -> Result<Comparison> {
    let ignored = differences(old, new);
    if !ignored.is_empty() && !anyway {
        return Err(Error::input(
            format!("{} is no measure for this: {}", path.display(), ignored.join("; ")),
            "measure both alike, or add --ignore-device",
        ));
    }
    let epoch = |report: &BenchReport| report.phases.last().map_or(0.0, |p| p.seconds.median);
    let mut phases = Vec::new();
    for phase in &new.phases {
        if let Some(before) = old.phases.iter().find(|before| before.name == phase.name) {
            let share = 100.0 * phase.seconds.median / epoch(new);
            let (old, new) = (&before.samples_s, &phase.samples_s);
            phases.push(Compared::new(&phase.name, "s", share, old, new));
        }
    }
    let (mut ops, mut missing) = (Vec::new(), Vec::new());
    for op in &new.ops {
        match old.ops.iter().find(|before| before.op == op.op) {
            Some(before) => {
                let share = op.share_percent.max(before.share_percent);
                ops.push(Compared::new(&op.op, "µs", share, &before.epochs_us, &op.epochs_us));
            }
            None => missing.push(op.op.clone()),
        }
    }
    let gone = |op: &&String| !new.ops.iter().any(|after| after.op == **op);
    missing.extend(old.ops.iter().map(|before| &before.op).filter(gone).cloned());
    let old = format!("{}: picie {} ({}), {}", path.display(), old.version, old.commit, old.date);
    Ok(Comparison { old, ignored, phases, ops, missing })
}

/// What makes the times of two reports differ, apart from the program.
fn differences(old: &BenchReport, new: &BenchReport) -> Vec<String> {
    let mut found = Vec::new();
    let mut differ = |what: &str, old: String, new: String| {
        if old != new {
            found.push(format!("{what} {old}, now {new}"));
        }
    };
    differ("engine", old.engine.clone(), new.engine.clone());
    for fact in ["driver", "cudnn", "compute_capability", "multiprocessors", "ecc"] {
        differ(fact, old.device[fact].to_string(), new.device[fact].to_string());
    }
    let limit = |report: &BenchReport| {
        let mut limits = report.conditions.iter().filter_map(|c| c.limit_watts);
        limits.next_back().map_or("unknown".into(), |watts| format!("{watts} W"))
    };
    differ("power limit", limit(old), limit(new));
    differ("images", old.images.to_string(), new.images.to_string());
    let recipe = |report: &BenchReport| serde_json::to_value(&report.recipe).unwrap_or_default();
    let (before, after) = (recipe(old), recipe(new));
    for (name, value) in after.as_object().into_iter().flatten() {
        differ(&format!("recipe's {name}"), before[name].to_string(), value.to_string());
    }
    found
}
