//! The command `picie devices`, which shows the engines of this machine.

use serde_json::json;

use crate::base::Result;
use crate::base::say::say;
use crate::cli::args::DevicesArgs;
use crate::device::cpu::Cpu;
use crate::device::cuda;

/// Runs the command: prints a description of the CPU engine and of each GPU. A missing driver or
/// GPU is an answer here, not a failure.
pub fn run(args: &DevicesArgs) -> Result<()> {
    let (threads, unit) = (rayon::current_num_threads(), Cpu::new().vector_unit());
    let (found, missing) = match cuda::devices() {
        Ok(sheets) => (sheets, cuda::missing_kernels().map(|why| format!("not usable: {why}"))),
        Err(e) => (Vec::new(), Some(format!("none: {e}"))),
    };
    if args.json {
        let cpu = json!({ "threads": threads, "vector_unit": unit });
        let cuda = json!({ "devices": found, "missing": missing });
        return say(json!({ "cpu": cpu, "cuda": cuda }));
    }
    let mut lines = vec![format!("cpu     {threads} threads, vector unit: {unit}")];
    lines.extend(found.iter().enumerate().map(|(i, s)| {
        format!(
            "cuda:{i}  {}, compute capability {}, {} multiprocessors, {} of {} MiB free, driver for CUDA {}.{}",
            s.name,
            s.compute_capability,
            s.multiprocessors,
            s.memory_free_mib,
            s.memory_mib,
            s.driver / 1000,
            s.driver % 1000 / 10
        )
    }));
    lines.extend(missing.map(|why| format!("cuda    {why}")));
    say(lines.join("\n"))
}
