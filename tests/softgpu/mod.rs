//! The software GPU itself: right kernels give right results, and each fault of `faults.cu` is caught.

mod faults;
mod gpu;
mod probes;
mod results;
mod sanitizer;
mod simulated;
