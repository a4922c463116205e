//! cuDNN 9's graph API, as far as convolutions need it.
//!
//! * `api`: the library and its functions; `install`: the libraries that it opens by itself.
//! * `descriptor`: one backend descriptor and its attributes.
//! * `graph`: a convolution with its epilogue as an operation graph.
//! * `engine`: what can run a graph, and a plan that does.
//! * `lane`: handles for several threads; `build`: the plans of a problem, on one of them.
//! * `ways`: what is asked for, and how it can be done.
//! * `choose`: the choice among ways and engines; `measure`: the stopwatch; `cache`: choices kept
//!   in a file; `times`: what such a file says to those who predict.

mod api;
mod build;
mod cache;
mod choose;
mod descriptor;
mod engine;
mod graph;
mod install;
mod lane;
mod measure;
mod times;
mod told;
mod ways;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use cudarc::cudnn::sys::cudnnDataType_t;
use cudarc::driver::sys::CUstream;
use serde::Serialize;

pub use api::Answer;
pub use engine::Plan;
pub use graph::{Operand, Operation};
pub use times::EngineTimes;
pub use ways::{Ask, Task, Way};

use crate::base::Result;
use crate::device::Dtype;
use crate::device::cuda::options::{Autotune, Options, Watcher};
use crate::device::cuda::sheet::Sheet;
use crate::device::ops::ConvSpec;
use api::Api;
use cache::{Cache, Entry};
use graph::Problem;
use lane::Lanes;

/// What a convolution does and how, for those who read plans.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    pub op: String,
    pub shape: String,
    /// What cuDNN computes of it, and whether a pass of our own follows.
    pub way: String,
    /// cuDNN's number of the engine, and its knobs.
    pub engine: String,
    /// What the engine says of its numbers.
    pub notes: Vec<String>,
    /// Of cuDNN's part, where it was measured.
    pub microseconds: Option<f32>,
    /// It is the engine that was chosen for so many images.
    pub like: Option<usize>,
    /// Bytes.
    pub workspace: usize,
    /// Other ways, and why they were not taken.
    pub others: Vec<String>,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Choice { op, shape, way, engine, notes, microseconds, like, workspace, others } = self;
        write!(f, "{op} {shape}: ")?;
        if way != op {
            write!(f, "{way}, ")?;
        }
        write!(f, "engine {engine}")?;
        if !notes.is_empty() {
            write!(f, " ({})", notes.join(", "))?;
        }
        match (microseconds, like) {
            (Some(us), _) => write!(f, ", {us:.1} µs")?,
            (None, Some(n)) => write!(f, ", as for {n} images")?,
            (None, None) => write!(f, ", not measured")?,
        }
        write!(f, ", workspace {:.2} MiB", *workspace as f64 / f64::from(1 << 20))?;
        others.iter().try_for_each(|other| write!(f, "; not {other}"))
    }
}

/// A problem's plan, and what is known of its engine.
struct Found {
    entry: Entry,
    plan: Arc<Plan>,
}

/// What an ask was given.
pub struct Taken {
    pub way: Way,
    pub plan: Arc<Plan>,
    choice: Choice,
}

/// cuDNN on one stream, and every plan that was made with it.
pub struct Handle {
    api: &'static Api,
    lanes: Lanes,
    stream: CUstream,
    gpu: String,
    driver: i32,
    /// Bytes a microsecond.
    bandwidth: f64,
    autotune: Autotune,
    deterministic: bool,
    watch: Watcher,
    cache: Cache,
    /// Whether it was said that cuDNN lacks something.
    has_warned: bool,
    asks: Vec<Ask>,
    /// Of each ask, once it was decided.
    taken: Vec<Option<Taken>>,
    /// Asks that are being decided, and how many of them no plan is kept of.
    open: Vec<usize>,
    new: usize,
    answers: HashMap<Problem, Answer<Found>>,
}

impl Handle {
    /// `sheet` is of the stream's GPU, under whose name choices are kept. Errors: no libcudnn, one
    /// that is too old or does not start.
    pub fn new(stream: CUstream, sheet: &Sheet, options: &Options) -> Result<Self> {
        let api = Api::get()?;
        let lanes = Lanes::new(api, stream);
        Ok(Handle {
            api,
            lanes: lanes.map_err(|e| {
                install::error(
                    e.text,
                    "install a cuDNN that knows this GPU and driver, or use --device cpu",
                )
            })?,
            stream,
            gpu: sheet.name.clone(),
            driver: sheet.driver,
            bandwidth: sheet.memory_gb_per_s * 1e3,
            autotune: options.autotune,
            deterministic: options.deterministic,
            watch: options.watch.clone(),
            cache: Cache::open(options.cache.clone()),
            has_warned: false,
            asks: Vec::new(),
            taken: Vec::new(),
            open: Vec::new(),
            new: 0,
            answers: HashMap::new(),
        })
    }

    /// Such as 91200 for 9.12.0.
    pub fn version(&self) -> usize {
        self.api.version()
    }

    /// Asks for a convolution, and returns the ask's number: the same for the same ask.
    /// [`Handle::decide`] answers.
    pub fn ask(&mut self, ask: Ask) -> usize {
        if let Some(i) = self.asks.iter().position(|other| *other == ask) {
            return i;
        }
        self.asks.push(ask);
        self.taken.push(None);
        self.asks.len() - 1
    }

    /// Ask `i` and what it was given. None before that was decided.
    pub fn given(&self, i: usize) -> Option<(&Ask, &Taken)> {
        Some((self.asks.get(i)?, self.taken.get(i)?.as_ref()?))
    }

    /// In the order of asking.
    pub fn choices(&self) -> impl Iterator<Item = &Choice> {
        self.taken.iter().flatten().map(|taken| &taken.choice)
    }

    /// What a choice depends on.
    fn key(&self, problem: &Problem) -> String {
        let which = if self.deterministic { ", deterministic" } else { "" };
        let Problem { spec, operation, data } = *problem;
        let (shape, data) = (shape_of(spec), name_of(data));
        format!("cuDNN {}, {}: {operation} of {shape} in {data}{which}", self.version(), self.gpu)
    }

    /// Gives everything back while the stream still is. The engine's last call.
    pub(super) fn close(&mut self) {
        self.taken.clear();
        self.answers.clear();
        self.lanes.close();
    }
}

impl From<Dtype> for cudnnDataType_t {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => cudnnDataType_t::CUDNN_DATA_FLOAT,
            Dtype::Bf16 => cudnnDataType_t::CUDNN_DATA_BFLOAT16,
            Dtype::F16 => cudnnDataType_t::CUDNN_DATA_HALF,
        }
    }
}

fn name_of(data: cudnnDataType_t) -> &'static str {
    match data {
        cudnnDataType_t::CUDNN_DATA_BFLOAT16 => "bf16",
        cudnnDataType_t::CUDNN_DATA_HALF => "f16",
        _ => "f32",
    }
}

fn shape_of(spec: ConvSpec) -> String {
    let ConvSpec { n, h, w, c, k, r, stride, pad } = spec;
    format!("{n}×{h}×{w}×{c} ∗ {k}×{r}×{r}, stride {stride}, padding {pad}")
}
