//! The state of the device during an epoch.

use crate::device::State;
use crate::report::bench::{BenchReport, short};

/// The share of other programs in the machine from which on a sample is marked, in percent.
const SHARED: f64 = 5.0;

/// Sums up the states of an epoch: the lowest clocks, the mean power, the highest temperature, what
/// held the clocks down at any moment, and the mean share of other programs.
pub fn of(states: &[&State]) -> State {
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
    State {
        sm_mhz: states.iter().filter_map(|s| s.sm_mhz).min(),
        memory_mhz: states.iter().filter_map(|s| s.memory_mhz).min(),
        watts: mean(states.iter().filter_map(|s| s.watts).collect()),
        limit_watts: states.iter().find_map(|s| s.limit_watts),
        celsius: states.iter().filter_map(|s| s.celsius).max(),
        throttled,
        others_percent: mean(states.iter().filter_map(|s| s.others_percent).collect())
            .map(|percent| percent.max(0.0)),
    }
}

/// Why a sample of an epoch in this state is not what the device can do; `None` where nothing is
/// known against it.
pub fn mark(state: &State) -> Option<String> {
    match (&state.throttled, state.others_percent) {
        (Some(reasons), _) if !reasons.is_empty() => {
            Some(format!("throttled: {}", reasons.join(", ")))
        }
        (_, Some(others)) if others > SHARED => {
            Some(format!("shared: others had {others:.0} % of the cores"))
        }
        _ => None,
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
        let marked: Vec<String> = all.iter().filter_map(mark).collect();
        if let Some(why) = marked.first() {
            parts.push(format!("{} of {} epochs are marked ({why})", marked.len(), all.len()));
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
        let both = of(&[&states[0], &states[1], &states[1]]);
        assert_eq!((both.sm_mhz, both.celsius, both.limit_watts), (Some(1500), Some(66), None));
        assert!((both.watts.unwrap() - 533.333).abs() <= 1e-9, "{both:?}");
        assert_eq!(mark(&both).unwrap(), "throttled: power cap");
        assert_eq!(mark(&of(&[&states[0]])), None);
        assert_eq!(of(&[]), State::default());
        let shared = State { others_percent: Some(40.0), ..State::default() };
        assert!(mark(&of(&[&shared])).unwrap().starts_with("shared"));
    }
}
