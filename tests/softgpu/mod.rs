//! The software GPU itself: right kernels give right results, and each fault of `faults.cu` is
//! caught.

mod cudnn;
mod faults;
mod gpu;
mod graph;
mod modes;
mod plans;
mod probes;
mod results;
mod rules;
mod sanitizer;
mod simulated;
mod traffic;
