//! `picie devices`.

use crate::base::Result;
use crate::cli::say;
use crate::device::cpu::Cpu;

pub fn run() -> Result<()> {
    say(format_args!("cpu   {} threads, vector unit: {}", rayon::current_num_threads(), Cpu::new().vector_unit()))?;
    say("cuda  not in this version; --device auto is cpu")
}
