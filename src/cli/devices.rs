//! The command `picie devices`, which shows the engines of this machine.

use crate::base::Result;
use crate::cli::say;
use crate::device::cpu::Cpu;
use crate::device::cuda;

/// Runs the command: prints a description of the CPU engine and of each GPU.
pub fn run() -> Result<()> {
    say(format_args!(
        "cpu     {} threads, vector unit: {}",
        rayon::current_num_threads(),
        Cpu::new().vector_unit()
    ))?;
    match cuda::devices() {
        Ok(sheets) => {
            for (i, s) in sheets.iter().enumerate() {
                let (driver, name) =
                    (format!("{}.{}", s.driver / 1000, s.driver % 1000 / 10), &s.name);
                say(format_args!(
                    "cuda:{i}  {name}, compute capability {}, {} multiprocessors, {} of {} MiB free, driver for CUDA {driver}",
                    s.compute_capability, s.multiprocessors, s.memory_free_mib, s.memory_mib
                ))?;
            }
            cuda::missing_kernels()
                .map_or(Ok(()), |what| say(format_args!("cuda    not usable: {what}")))
        }
        // A missing driver or GPU is an answer here, not a failure.
        Err(e) => say(format_args!("cuda    none: {e}")),
    }
}
