//! The state of the device during an epoch.

use serde::{Deserialize, Serialize};

use crate::device::State;
use crate::report::bench::{BenchReport, short};

/// The share of other programs in the machine from which on a sample is marked, in percent.
const SHARED: f64 = 5.0;

/// What the device was in during an epoch; `None` where it does not tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// The lowest clock of the multiprocessors in MHz.
    pub sm_mhz: Option<u32>,
    /// The lowest clock of the memory in MHz.
    pub memory_mhz: Option<u32>,
    /// The mean power, and the power that is allowed.
    pub watts: Option<f64>,
    pub limit_watts: Option<f64>,
    /// The highest temperature.
    pub celsius: Option<u32>,
    /// What held the clocks down at any moment; empty where nothing did.
    pub throttled: Option<Vec<String>>,
    /// The mean share of other programs in the machine, in percent.
    pub others_percent: Option<f64>,
}

impl Conditions {
    /// Sums up the states of an epoch.
    pub fn of(states: &[&State]) -> Self {
        let mean = |values: Vec<f64>| {
            (!values.is_empty()).then(|| short(values.iter().sum::<f64>() / values.len() as f64))
        };
        let mut throttled: Option<Vec<String>> = None;
        for reasons in states.iter().filter_map(|state| state.throttled.as_ref()) {
            let all = throttled.get_or_insert_default();
            all.extend(
                reasons.iter().filter(|reason| !all.contains(reason)).cloned().collect::<Vec<_>>(),
            );
        }
        Conditions {
            sm_mhz: states.iter().filter_map(|s| s.sm_mhz).min(),
            memory_mhz: states.iter().filter_map(|s| s.memory_mhz).min(),
            watts: mean(states.iter().filter_map(|s| s.watts).collect()),
            limit_watts: states.iter().find_map(|s| s.limit_watts),
            celsius: states.iter().filter_map(|s| s.celsius).max(),
            throttled,
            others_percent: mean(states.iter().filter_map(|s| s.others_percent).collect()),
        }
    }

    /// Why a sample of this epoch is not what the device can do; `None` where nothing is known
    /// against it.
    pub fn mark(&self) -> Option<String> {
        match (&self.throttled, self.others_percent) {
            (Some(reasons), _) if !reasons.is_empty() => {
                Some(format!("throttled: {}", reasons.join(", ")))
            }
            (_, Some(others)) if others > SHARED => {
                Some(format!("shared: others had {others:.0} % of the cores"))
            }
            _ => None,
        }
    }
}

impl BenchReport {
    /// What is to be said of the state of the device; nothing where nothing is known.
    pub fn state(&self) -> Option<String> {
        let all = &self.conditions;
        let first = all.first()?;
        let mut parts = Vec::new();
        let range = |values: Vec<f64>, unit: &str| {
            let low = values.iter().copied().reduce(f64::min)?;
            let high = values.iter().copied().reduce(f64::max)?;
            let range =
                if low == high { format!("{low:.0}") } else { format!("{low:.0} to {high:.0}") };
            Some(format!("{range} {unit}"))
        };
        parts.extend(range(all.iter().filter_map(|c| c.sm_mhz.map(f64::from)).collect(), "MHz"));
        let watts = range(all.iter().filter_map(|c| c.watts).collect(), "W");
        parts.extend(watts.map(|watts| match first.limit_watts {
            Some(limit) => format!("{watts} of {limit:.0} W"),
            None => watts,
        }));
        parts.extend(range(all.iter().filter_map(|c| c.celsius.map(f64::from)).collect(), "°C"));
        let others = range(all.iter().filter_map(|c| c.others_percent).collect(), "% of the cores");
        parts.extend(others.map(|others| format!("other programs had {others}")));
        let marked: Vec<String> = all.iter().filter_map(Conditions::mark).collect();
        if let Some(mark) = marked.first() {
            parts.push(format!("{} of {} epochs are marked ({mark})", marked.len(), all.len()));
        } else if first.throttled.is_some() {
            parts.push("never throttled".into());
        }
        (!parts.is_empty()).then(|| format!("state while measuring: {}", parts.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_keeps_the_worst_of_its_states() {
        let state = |mhz, watts, reasons: &[&str]| State {
            sm_mhz: Some(mhz),
            watts: Some(watts),
            celsius: Some(mhz / 30),
            throttled: Some(reasons.iter().map(|r| r.to_string()).collect()),
            ..State::default()
        };
        let states = [state(1980, 400.0, &[]), state(1500, 600.0, &["power cap"])];
        let both = Conditions::of(&[&states[0], &states[1], &states[1]]);
        assert_eq!((both.sm_mhz, both.celsius, both.limit_watts), (Some(1500), Some(66), None));
        assert!((both.watts.unwrap() - 533.333).abs() <= 1e-9, "{both:?}");
        assert_eq!(both.mark().unwrap(), "throttled: power cap");
        assert_eq!(Conditions::of(&[&states[0]]).mark(), None);
        assert_eq!(Conditions::of(&[]), Conditions::default());
        let shared = State { others_percent: Some(40.0), ..State::default() };
        assert!(Conditions::of(&[&shared]).mark().unwrap().starts_with("shared"));
    }
}
