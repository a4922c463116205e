//! cuDNN 9's graph API, as far as convolutions need it.
//!
//! * `api`: the library and its functions.
//! * `descriptor`: one backend descriptor and its attributes.
//! * `graph`: a convolution with its epilogue as an operation graph.
//! * `engine`: what can run a graph, and a plan that does.
//! * `tune`: the choice among engines; `cache`: choices kept in a file.

mod api;
mod cache;
mod descriptor;
mod engine;
mod graph;
mod tune;

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

use cudarc::cudnn::sys::{cudnnDataType_t, cudnnHandle_t};
use cudarc::driver::sys::CUstream;
use serde::Serialize;

pub use api::Answer;
pub use engine::Plan;
pub use graph::{Operand, Operation, Problem};

use crate::base::Result;
use crate::device::cuda::context::{Autotune, Options};
use crate::device::ops::{ConvSpec, Terms};
use api::Api;
use cache::Cache;

/// An engine that was chosen, for the log.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    pub op: String,
    pub shape: String,
    /// cuDNN's number of the engine, and its knobs.
    pub engine: String,
    /// Where it was measured.
    pub microseconds: Option<f32>,
    /// Bytes.
    pub workspace: usize,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Choice { op, shape, engine, microseconds, workspace } = self;
        let time = microseconds.map_or("not measured".into(), |us| format!("{us:.1} µs"));
        write!(f, "{op} {shape}: engine {engine}, {time}, workspace {:.2} MiB", *workspace as f64 / f64::from(1 << 20))
    }
}

/// cuDNN on one stream, and every plan that was made with it.
pub struct Handle {
    api: &'static Api,
    raw: cudnnHandle_t,
    stream: CUstream,
    gpu: String,
    autotune: Autotune,
    deterministic: bool,
    cache: Cache,
    plans: HashMap<Problem, Answer<Rc<Plan>>>,
    choices: Vec<Choice>,
}

impl Handle {
    /// `gpu` is the name under which measurements are kept. Errors: no libcudnn, one that is too old or does not start.
    pub fn new(stream: CUstream, gpu: &str, options: &Options) -> Result<Self> {
        let api = Api::get()?;
        let mut raw: cudnnHandle_t = std::ptr::null_mut();
        // SAFETY: the pointer is to a live handle variable; the context is current.
        let created = api.check("cudnnCreate", unsafe { (api.create)(&mut raw) });
        // SAFETY: `raw` was created (else the call is not made); the stream outlives the handle, see `close`.
        let bound = created.and_then(|()| api.check("cudnnSetStream", unsafe { (api.set_stream)(raw, stream.cast()) }));
        bound.map_err(|e| api::error(e.0, "install a cuDNN that knows this GPU and driver, or use --device cpu"))?;
        Ok(Handle {
            api,
            raw,
            stream,
            gpu: gpu.into(),
            autotune: options.autotune,
            deterministic: options.deterministic,
            cache: Cache::open(options.cache.clone()),
            plans: HashMap::new(),
            choices: Vec::new(),
        })
    }

    fn api(&self) -> &'static Api {
        self.api
    }

    fn raw(&self) -> cudnnHandle_t {
        self.raw
    }

    /// Such as 91200 for 9.12.0.
    pub fn version(&self) -> usize {
        self.api.version()
    }

    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// The plan for `problem`, made at the first call. Refused where no engine takes it.
    pub fn plan(&mut self, problem: Problem) -> Answer<Rc<Plan>> {
        if let Some(plan) = self.plans.get(&problem) {
            return plan.clone();
        }
        let plan = tune::choose(self, &problem).map(|(plan, microseconds)| {
            let (engine, workspace) = (plan.tag.clone(), plan.workspace);
            let (op, shape) = (name_of(problem.operation), shape_of(problem.spec));
            self.choices.push(Choice { op, shape, engine, microseconds, workspace });
            Rc::new(plan)
        });
        self.plans.insert(problem, plan.clone());
        plan
    }

    /// What a measurement depends on.
    fn key(&self, problem: &Problem) -> String {
        let data = match problem.data {
            cudnnDataType_t::CUDNN_DATA_BFLOAT16 => "bf16",
            cudnnDataType_t::CUDNN_DATA_HALF => "f16",
            _ => "f32",
        };
        let which = if self.deterministic { ", deterministic" } else { "" };
        let (op, shape) = (name_of(problem.operation), shape_of(problem.spec));
        format!("cuDNN {}, {}: {op} of {shape} in {data}{which}", self.version(), self.gpu)
    }

    /// Gives everything back while the stream still is. The engine's last call.
    pub(super) fn close(&mut self) {
        self.plans.clear();
        if !self.raw.is_null() {
            // SAFETY: created by `new`, destroyed once: the handle is null afterwards.
            unsafe { (self.api.destroy)(self.raw) };
            self.raw = std::ptr::null_mut();
        }
    }
}

fn name_of(operation: Operation) -> String {
    match operation {
        Operation::Forward(Terms { bias, residual, relu }) => {
            let term = |on, text| if on { text } else { "" };
            format!("forward{}{}{}", term(bias, " + bias"), term(residual, " + residual"), term(relu, ", ReLU"))
        }
        Operation::BackwardData { accumulate: false } => "data gradient".into(),
        Operation::BackwardData { accumulate: true } => "data gradient, added".into(),
        Operation::BackwardWeight { accumulate, wide } => {
            let (how, ty) = (if accumulate { ", added" } else { "" }, if wide { ", in f32" } else { "" });
            format!("weight gradient{how}{ty}")
        }
    }
}

fn shape_of(spec: ConvSpec) -> String {
    let ConvSpec { n, h, w, c, k, r, stride, pad } = spec;
    format!("{n}×{h}×{w}×{c} ∗ {k}×{r}×{r}, stride {stride}, padding {pad}")
}
