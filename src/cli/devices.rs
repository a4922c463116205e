//! `picie devices`.

use crate::device::cpu::Cpu;

pub fn run() {
    println!("cpu   {} threads, vector unit: {}", rayon::current_num_threads(), Cpu::new().vector_unit());
    println!("cuda  not in this version; --device auto is cpu");
}
