//! Which engines can run a graph, and a plan: a graph with one engine, ready to run.

use std::fmt::Write as _;
use std::rc::Rc;

use cudarc::cudnn::sys::cudnnBackendAttributeName_t::*;
use cudarc::cudnn::sys::cudnnBackendAttributeType_t::*;
use cudarc::cudnn::sys::cudnnBackendDescriptorType_t::*;
use cudarc::cudnn::sys::cudnnBackendHeurMode_t::{self as Mode, *};
use cudarc::cudnn::sys::cudnnBackendNumericalNote_t::*;
use cudarc::cudnn::sys::cudnnDataType_t as Data;

use super::Handle;
use super::api::Answer;
use super::descriptor::{Address, Descriptor, MANY};
use super::graph::{Operand, Problem};

/// An engine with its knobs set.
#[derive(Clone)]
pub struct Config {
    descriptor: Rc<Descriptor>,
    /// The engine's number and its knobs, such as `3:0=1,2=17`: the name it is remembered by.
    pub tag: String,
    notes: Vec<u32>,
}

impl Config {
    fn read(descriptor: Rc<Descriptor>) -> Answer<Self> {
        let engines = descriptor.get_descriptors(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR, 1)?;
        let (mut tag, mut notes) = (String::new(), Vec::new());
        for engine in engines {
            write!(tag, "{}", engine.get::<i64>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX)?).expect("memory");
            notes = engine.get_enums(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE)?;
        }
        let kind = CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR;
        let knobs = descriptor.get_descriptors(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, kind, MANY)?;
        for (i, knob) in knobs.into_iter().enumerate() {
            let name = knob.get_enum(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE)?;
            let value = knob.get::<i64>(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE)?;
            write!(tag, "{}{name}={value}", if i == 0 { ":" } else { "," }).expect("memory");
        }
        Ok(Config { descriptor, tag, notes })
    }

    /// Engines of f32 are for parity: they must neither round their inputs (to TF32, say) nor transform them (Winograd's larger tiles
    /// cost digits), nor sum in less than f32, which no type's may. With `deterministic` the same inputs must give the same bits.
    fn is_wanted(&self, data: Data, deterministic: bool) -> bool {
        let has = |note| self.notes.contains(&(note as u32));
        let rounds = has(CUDNN_NUMERICAL_NOTE_TENSOR_CORE) || has(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS);
        let transforms = has(CUDNN_NUMERICAL_NOTE_WINOGRAD) || has(CUDNN_NUMERICAL_NOTE_FFT);
        let unwanted = has(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)
            || (data == Data::CUDNN_DATA_FLOAT && (rounds || transforms))
            || (deterministic && has(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC));
        !unwanted
    }
}

/// The heuristics' lists, the most trusted first.
pub const MODES: [Mode; 3] = [CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_B, CUDNN_HEUR_MODE_FALLBACK];

/// What one list offers for `graph`, best first, without what is not wanted. Nothing where the list knows nothing.
pub fn configs(handle: &Handle, graph: &Rc<Descriptor>, mode: Mode, data: Data, deterministic: bool) -> Vec<Config> {
    let list = || -> Answer<Vec<Config>> {
        let heuristics = Descriptor::build(handle.api(), CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, |d| {
            d.set_descriptors(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, std::slice::from_ref(graph))?;
            d.set_enum(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, mode as u32)
        })?;
        let name = CUDNN_ATTR_ENGINEHEUR_RESULTS;
        let count = heuristics.count(name)?;
        let found = heuristics.get_descriptors(name, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, count)?;
        Ok(found.into_iter().filter_map(|d| Config::read(d).ok()).collect())
    };
    let mut found = list().unwrap_or_default();
    found.retain(|config| config.is_wanted(data, deterministic));
    found
}

/// A graph with its engine.
pub struct Plan {
    descriptor: Rc<Descriptor>,
    operands: Vec<Operand>,
    /// Bytes.
    pub workspace: usize,
    pub tag: String,
    /// Keeps what the plan was made from.
    _graph: Rc<Descriptor>,
}

impl Plan {
    /// Refused where the engine cannot run the graph after all.
    pub fn build(handle: &Handle, graph: &Rc<Descriptor>, config: &Config, problem: &Problem) -> Answer<Self> {
        let descriptor = Descriptor::build(handle.api(), CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, |d| {
            d.set_handle(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, handle.raw())?;
            d.set_descriptors(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, std::slice::from_ref(&config.descriptor))
        })?;
        let workspace = descriptor.get::<i64>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)?.max(0) as usize;
        let operands = problem.operands().into_iter().map(|(operand, _)| operand).collect();
        Ok(Plan { descriptor, operands, workspace, tag: config.tag.clone(), _graph: graph.clone() })
    }

    /// Queues the plan on the handle's stream. Addresses are those of the plan's operands, among others.
    ///
    /// # Safety
    /// Each operand's address is of device memory of its size, and `workspace` of what the plan wants.
    pub unsafe fn execute(&self, handle: &Handle, addresses: &[(Operand, u64)], workspace: u64) -> Answer {
        let (mut ids, mut pointers) = ([0i64; 5], [Address(0); 5]);
        let count = self.operands.len();
        for (i, &wanted) in self.operands.iter().enumerate() {
            let &(_, at) =
                addresses.iter().find(|(operand, _)| *operand == wanted).expect("every operand has an address");
            (ids[i], pointers[i]) = (wanted as i64, Address(at));
        }
        // A finalized descriptor takes no attributes any more, so a pack is made for each call; recorded steps make none.
        let pack = Descriptor::build(handle.api(), CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, |d| {
            d.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &ids[..count])?;
            d.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, &pointers[..count])?;
            d.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, &[Address(workspace)])
        })?;
        let api = handle.api();
        // SAFETY: plan and pack are finalized and alive; the memory is the caller's promise.
        api.check("cudnnBackendExecute", unsafe { (api.execute)(handle.raw(), self.descriptor.raw(), pack.raw()) })
    }
}
