//! What only CUDA has: transfers, cuDNN's engines and the ways around them, recorded training
//! steps, registers. Each op's results are compared with the CPU's in `tests/ops`: on the GPU where
//! there is one, else on the software GPU.

mod backbone;
pub mod conv;
mod engines;
mod memory;
mod registers;
mod sass;
mod step;
mod trace;
