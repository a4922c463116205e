//! How much of the machine other programs take, as Linux counts it.

use std::fs::read_to_string;

use crate::device::gauge::{Gauge, State};

/// Ticks of all cores since the machine was started: all, and those that were busy or taken away by
/// the host of a virtual machine; and ticks of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Ticks {
    all: f64,
    busy: f64,
    own: f64,
}

/// The gauge of the CPU engine.
#[derive(Default)]
pub(super) struct Others(Ticks);

impl Others {
    /// A gauge that counts from now on.
    pub fn new() -> Self {
        Others(Ticks::now().unwrap_or_default())
    }
}

impl Gauge for Others {
    fn read(&mut self) -> State {
        let now = Ticks::now();
        let others_percent = now.and_then(|now| now.others(std::mem::replace(&mut self.0, now)));
        State { others_percent, ..State::default() }
    }
}

impl Ticks {
    /// `None` where there is no /proc.
    fn now() -> Option<Self> {
        Self::parse(&read_to_string("/proc/stat").ok()?, &read_to_string("/proc/self/stat").ok()?)
    }

    fn parse(machine: &str, process: &str) -> Option<Self> {
        // user nice system idle iowait irq softirq steal; guests are in user already.
        let line = machine.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<f64> =
            line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
        let all = ticks.iter().sum();
        let idle = ticks.get(3)? + ticks.get(4)?;
        // The program's name may have spaces; behind it, utime and stime are the 12th and 13th.
        let mut fields = process.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut field = || fields.next()?.parse::<f64>().ok();
        Some(Ticks { all, busy: all - idle, own: field()? + field()? })
    }

    /// The share of others since `before` in percent; `None` if no time has passed. It may be below
    /// 0: the kernel counts whole ticks, of this process and of all at other moments.
    fn others(self, before: Ticks) -> Option<f64> {
        let (all, busy, own) =
            (self.all - before.all, self.busy - before.busy, self.own - before.own);
        (all > 0.0).then(|| (100.0 * (busy - own) / all).min(100.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_busy_and_not_ours_is_others() {
        let own = "7 (a b) c) R 1 2 3 4 5 6 7 8 9 10 60 40 0";
        let before = Ticks::parse("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1", own).unwrap();
        assert_eq!(before, Ticks { all: 1000.0, busy: 150.0, own: 100.0 });
        // 100 ticks on: 70 are busy or stolen, 40 of them ours.
        let own = "7 (a b) c) R 1 2 3 4 5 6 7 8 9 10 95 45 0";
        let now = Ticks::parse("cpu  140 0 60 830 50 0 0 20 0 0", own).unwrap();
        assert_eq!(now.others(before), Some(30.0));
        assert_eq!(now.others(now), None);
        assert_eq!(Ticks::parse("intr 5", own), None);
    }
}
