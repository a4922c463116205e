//! The report as CSV, and a trace for Perfetto and chrome://tracing.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::base::stats::Summary;
use crate::device::{Traced, Work};
use crate::report::bench::BenchReport;

/// Tracks of a trace, from above.
const TRACKS: [&str; 7] =
    ["epoch", "phase", "step", "layer", "op", "wait for images", "host copies"];

impl BenchReport {
    /// Phases and ops as CSV, times in microseconds, with a line of names first.
    pub fn csv(&self) -> String {
        let mut text = "table,name,calls,n,min_us,q1_us,median_us,q3_us,max_us,floor_us,bound,\
                        efficiency_percent,share_percent,bytes,flops\n"
            .to_string();
        let summary = |s: &Summary, unit: f64| {
            let Summary { n, min, q1, median, q3, max } = *s;
            let times = [min, q1, median, q3, max].map(|t| (t * unit).to_string());
            format!("{n},{}", times.join(","))
        };
        for p in &self.phases {
            let (times, floor) = (summary(&p.seconds, 1e6), p.floor_s * 1e6);
            let _ =
                writeln!(text, "phase,{},1,{times},{floor},,{},,,", p.name, p.efficiency_percent);
        }
        for op in &self.ops {
            let (times, bound) = (summary(&op.us, 1.0), super::text::bound(op.bound));
            let _ = writeln!(
                text,
                "op,\"{}\",{},{times},{},{bound},{},{},{},{}",
                op.op,
                op.calls,
                op.floor_us,
                op.efficiency_percent,
                op.share_percent,
                op.bytes,
                op.flops
            );
        }
        text
    }
}

/// A traced epoch as a JSON trace: a track each for the epoch, phases, steps, layers, ops, waits
/// and what the host copies.
pub fn trace(traced: &Traced) -> String {
    let mut events: Vec<Value> = TRACKS
        .iter()
        .enumerate()
        .map(|(track, name)| {
            json!({"ph": "M", "name": "thread_name", "pid": 1, "tid": track, "args": {"name": name}})
        })
        .collect();
    let event = |name: &str, track: usize, start: f64, end: f64, args: Value| {
        let micro = |seconds: f64| (seconds * 1e9).round() / 1e3;
        json!({"ph": "X", "name": name, "pid": 1, "tid": track, "ts": micro(start), "dur": micro(end - start), "args": args})
    };
    // A range lasts from its first call to its last, the calls of inner ranges too.
    let mut ranges = vec![(f64::INFINITY, f64::NEG_INFINITY); traced.spans.len()];
    let mut all = (f64::INFINITY, f64::NEG_INFINITY);
    let widen = |range: &mut (f64, f64), start: f64, end: f64| {
        *range = (range.0.min(start), range.1.max(end));
    };
    for call in &traced.calls {
        let end = call.start + call.seconds;
        widen(&mut all, call.start, end);
        let mut span = call.span;
        while let Some(i) = span {
            widen(&mut ranges[i], call.start, end);
            span = traced.spans[i].parent;
        }
    }
    if all.0 <= all.1 {
        events.push(event("epoch", 0, all.0, all.1, Value::Null));
    }
    for (span, &(start, end)) in traced.spans.iter().zip(&ranges).filter(|(_, r)| r.0 <= r.1) {
        let track = match (span.parent, span.name.as_str()) {
            (None, _) => 1,
            (_, "step") => 2,
            _ => 3,
        };
        events.push(event(&span.name, track, start, end, Value::Null));
    }
    for call in &traced.calls {
        let track = if call.host {
            6
        } else if call.work == Work::default() {
            5
        } else {
            4
        };
        let args = json!({"bytes": call.work.bytes, "flops": call.work.flops});
        events.push(event(
            &traced.ops[call.op],
            track,
            call.start,
            call.start + call.seconds,
            args,
        ));
    }
    json!({"displayTimeUnit": "ms", "traceEvents": events}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Call, Span};

    #[test]
    fn ranges_last_as_long_as_their_calls() {
        let span = |name: &str, parent| Span { name: name.into(), parent };
        let call = |op, span, start, work: f64, host| Call {
            op,
            span: Some(span),
            work: Work::moved(work as usize),
            start,
            seconds: 0.001,
            host,
        };
        let traced = Traced {
            ops: ["conv", "wait for images", "host write"].map(String::from).to_vec(),
            calls: vec![
                call(0, 2, 0.001, 8.0, false),
                call(1, 1, 0.003, 0.0, false),
                call(2, 0, 0.0, 4.0, true),
            ],
            spans: vec![
                span("train", None),
                span("step", Some(0)),
                span("layer1", Some(1)),
                span("empty", None),
            ],
        };
        let told: Value = serde_json::from_str(&trace(&traced)).unwrap();
        let events = told["traceEvents"].as_array().unwrap();
        let found = |name: &str| {
            let event = events.iter().find(|e| e["name"] == name).unwrap();
            let number = |key: &str| event[key].as_f64().unwrap();
            (number("tid"), number("ts"), number("dur"))
        };
        assert_eq!(found("epoch"), (0.0, 0.0, 4000.0));
        assert_eq!(found("train"), (1.0, 0.0, 4000.0));
        assert_eq!(found("step"), (2.0, 1000.0, 3000.0));
        assert_eq!(found("layer1"), (3.0, 1000.0, 1000.0));
        assert_eq!(found("conv"), (4.0, 1000.0, 1000.0));
        assert_eq!(found("wait for images"), (5.0, 3000.0, 1000.0));
        assert_eq!(found("host write"), (6.0, 0.0, 1000.0));
        assert!(events.iter().all(|e| e["name"] != "empty"));
    }
}
