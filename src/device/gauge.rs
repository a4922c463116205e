//! What state a device is in while it is measured: clocks, power, temperature, and what slows it
//! down.

use serde::{Deserialize, Serialize};

/// The state of a device at one moment. What the device does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Clock of the multiprocessors in MHz.
    pub sm_mhz: Option<u32>,
    /// Clock of the memory in MHz.
    pub memory_mhz: Option<u32>,
    pub watts: Option<f64>,
    /// The power that the device is allowed.
    pub limit_watts: Option<f64>,
    pub celsius: Option<u32>,
    /// What holds the clocks down, apart from idleness and the user's own settings; empty where
    /// nothing does.
    pub throttled: Option<Vec<String>>,
    /// The share of all cores that other programs had since the last look, in percent.
    pub others_percent: Option<f64>,
}

/// Reads the state of a device, from any thread, while the engine computes.
pub trait Gauge: Send {
    fn read(&mut self) -> State;
}
