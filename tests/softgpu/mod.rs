//! The software GPU itself: right kernels give right results, and each fault of `faults.cu` is caught.

mod faults;
mod gpu;
mod modes;
mod probes;
mod results;
mod rules;
mod sanitizer;
mod simulated;
