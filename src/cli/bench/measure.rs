//! Measuring: the start, peaks, epochs as they run in a training, and epochs with each op timed,
//! one after the other until enough is known.

use std::time::{Instant, SystemTime};

use crate::base::stats::Summary;
use crate::base::{Result, stop};
use crate::cli::bench::model;
use crate::cli::bench::sampler::Sampler;
use crate::data::PictureSet;
use crate::device::{Dtype, Engine, Peaks, Traced};
use crate::recipe::Recipe;
use crate::report::Progress;
use crate::report::bench::{Account, BenchReport, KindRow, OpRow, PhaseRow, SCHEMA, StartUp};
use crate::train::{EpochSeconds, Measured};

/// Dense products of 16 bits with f32 sums in TFLOP/s, by the data sheets of GPUs whose names have
/// these words.
const SHEETS: [(&str, f64); 7] = [
    ("H200", 989.0),
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.0),
    ("A100", 312.0),
    ("L40S", 362.0),
    ("L4", 121.0),
];

/// Epochs that are measured at least where noise decides: with five on both sides a comparison can
/// be sure at 99 %.
const FEWEST: usize = 5;

/// When enough epochs are measured.
#[derive(Clone, Copy)]
pub enum Stop {
    /// After this many.
    Epochs(usize),
    /// When the noise of the median is below `percent`, or after `seconds`; not before
    /// [`FEWEST`].
    Noise { percent: f64, seconds: f64 },
}

impl Stop {
    /// Why to stop now, after epochs that took so long and `seconds` of measuring.
    fn reason(self, epochs: &[f64], seconds: f64) -> Option<String> {
        match self {
            Stop::Epochs(n) => (epochs.len() >= n).then(|| format!("--epochs {n}")),
            Stop::Noise { .. } if epochs.len() < FEWEST => None,
            Stop::Noise { percent, seconds: most } => {
                let noise = 100.0 * Summary::of(epochs).noise();
                if noise <= percent {
                    Some(format!("the noise of their median is {noise:.2} %"))
                } else if seconds >= most {
                    Some(format!(
                        "{most} seconds are over, with {noise:.2} % of noise in the median"
                    ))
                } else {
                    None
                }
            }
        }
    }

    /// Epochs that are known to come.
    fn least(self) -> usize {
        match self {
            Stop::Epochs(n) => n,
            Stop::Noise { .. } => FEWEST,
        }
    }
}

/// Whether all words of `some` are words of `name`, as in "NVIDIA H100 80GB HBM3" and "H100".
fn has_words(name: &str, some: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_alphanumeric()).map(String::from).collect()
    };
    let name = words(name);
    words(some).iter().all(|word| name.contains(word))
}

/// A measurement in progress.
pub struct Measuring<'a> {
    dev: &'a mut dyn Engine,
    startup: Vec<StartUp>,
    since: Instant,
}

impl<'a> Measuring<'a> {
    /// Begins with an engine that is open; `started` is when that began.
    pub fn new(dev: &'a mut dyn Engine, started: Instant) -> Self {
        let mut measuring = Measuring { dev, startup: Vec::new(), since: started };
        measuring.done("open the engine");
        measuring
    }

    /// Ends a part of the start.
    pub fn done(&mut self, what: &str) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.startup.push(StartUp { what: what.into(), seconds });
        self.since = Instant::now();
    }

    /// Measures the training of `recipe` on `set`. Losses are looked at every `look_every` steps.
    /// With the report comes the last epoch that was traced.
    pub fn run(
        mut self,
        recipe: Recipe,
        set: &PictureSet,
        look_every: usize,
        warm_up: usize,
        stop: Stop,
    ) -> Result<(BenchReport, Traced)> {
        let images = set.images().len();
        let device = self.dev.describe();
        let name = device["name"].as_str().unwrap_or_default().to_string();
        let mut peaks = Peaks::measure(self.dev)?;
        let sheet = SHEETS.iter().find(|(gpu, _)| has_words(&name, gpu));
        // Tensor cores do not compute in f32.
        let sheet = sheet.filter(|_| self.dev.dtype() != Dtype::F32);
        peaks.sheet_tflop_per_s = sheet.map(|(_, peak)| *peak);
        peaks.sheet_gb_per_s = device["memory_gb_per_s"].as_f64();
        self.done("measure copies and products");

        let mut measured = Measured::plan(self.dev, &recipe, set, look_every)?;
        let parts = measured.startup().iter();
        self.startup.extend(parts.map(|(what, s)| StartUp { what: (*what).into(), seconds: *s }));
        let total = 2 * images * (warm_up + stop.least());
        let bar = Progress::phase("bench", total as u64);
        let mut epoch = |dev: &mut dyn Engine| -> Result<EpochSeconds> {
            let seconds = measured.epoch(dev, &mut |_| stop::check())?;
            bar.add(images as u64);
            Ok(seconds)
        };
        for i in 1..=warm_up {
            self.since = Instant::now();
            epoch(self.dev)?;
            self.done(&format!("epoch {i} to warm up"));
            self.dev.start_trace()?;
            epoch(self.dev)?;
            self.dev.take_trace()?;
            self.done(&format!("epoch {i} to warm up, traced"));
        }
        let (mut plain, mut timed, mut traced): (
            Vec<EpochSeconds>,
            Vec<EpochSeconds>,
            Vec<Traced>,
        ) = Default::default();
        let mut sampler = self.dev.gauge().map(Sampler::start);
        let mut conditions = Vec::new();
        let begun = Instant::now();
        let stopped = loop {
            let start = Instant::now();
            plain.push(epoch(self.dev)?);
            conditions.extend(sampler.as_mut().map(|sampler| sampler.since(start)));
            self.dev.start_trace()?;
            timed.push(epoch(self.dev)?);
            traced.push(self.dev.take_trace()?);
            let totals: Vec<f64> = plain.iter().map(EpochSeconds::total).collect();
            if let Some(reason) = stop.reason(&totals, begun.elapsed().as_secs_f64()) {
                break reason;
            }
        };
        bar.finish();
        drop((sampler, measured));
        // Again, for the machine may have been busy before.
        peaks = peaks.or_better(&Peaks::measure(self.dev)?);

        let mut ops = OpRow::all(&traced, &peaks);
        if let Some(gpu) = model::of(&name) {
            let predicted = model::predict(gpu, self.dev.dtype(), &recipe, images)?;
            let predicted = OpRow::all(&[predicted.traced], &peaks);
            ops.iter_mut().for_each(|row| row.predict(&predicted));
        }
        let power: Vec<f64> = conditions.iter().filter_map(|c| c.watts).collect();
        let watts = (!power.is_empty()).then(|| power.iter().sum::<f64>() / power.len() as f64);
        let on_host = self.dev.free_bytes().is_none();
        let phase = |(i, (name, _)): (usize, &(&'static str, f64))| {
            let seconds = |epochs: &[EpochSeconds]| -> Vec<f64> {
                epochs.iter().map(|epoch| epoch.named()[i].1).collect()
            };
            let account = Account::of(name, &seconds(&timed), &traced, &peaks);
            PhaseRow::new(name, images, &seconds(&plain), account, &peaks, on_host).at_power(watts)
        };
        let report = BenchReport {
            schema: SCHEMA,
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            commit: env!("PICIE_COMMIT").into(),
            engine: format!("{name}, {}", self.dev.dtype().name()),
            device,
            images,
            sizes: None,
            warm_up_epochs: warm_up,
            stopped,
            startup: self.startup,
            conditions,
            phases: plain[0].named().iter().enumerate().map(phase).collect(),
            recipe,
            choices: self.dev.choices(),
            peaks,
            kinds: KindRow::all(&ops),
            ops,
            kernels: Vec::new(),
            assumed: None,
            against: None,
        };
        Ok((report, traced.pop().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_sheet_is_of_the_very_gpu() {
        assert!(has_words("NVIDIA H100 80GB HBM3", "H100") && has_words("NVIDIA L4", "L4"));
        assert!(has_words("NVIDIA A100-SXM4-40GB", "A100"));
        assert!(!has_words("NVIDIA L40", "L4") && !has_words("NVIDIA H100 NVL", "H100 PCIe"));
    }

    #[test]
    fn measuring_stops_when_it_knows_enough_or_has_no_time() {
        let quiet = [1.0, 1.01, 1.0, 1.01, 1.0];
        let loud = [1.0, 1.5, 1.0, 1.5, 1.0];
        let stop = Stop::Noise { percent: 1.0, seconds: 60.0 };
        assert!(stop.reason(&quiet, 5.0).unwrap().contains("0.70 %"));
        assert_eq!(stop.reason(&loud, 59.0), None);
        assert!(stop.reason(&loud, 60.0).unwrap().contains("60 seconds are over"));
        assert_eq!(stop.reason(&quiet[..4], 99.0), None, "too few to compare with");
        assert_eq!(Stop::Epochs(3).reason(&loud[..2], 1e9), None);
        assert_eq!(Stop::Epochs(3).reason(&loud[..3], 0.0).unwrap(), "--epochs 3");
    }
}
