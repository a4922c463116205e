//! One test binary: `cargo test` links once. Each folder mirrors a folder of `src/`.

mod build;
mod cli;
mod cuda;
mod data;
#[cfg(target_os = "linux")]
mod faults;
mod house;
mod kit;
mod losses;
mod methods;
mod net;
mod ops;
mod recipe;
mod rooms;
mod softgpu;
mod systems;
mod util;
