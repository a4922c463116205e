//! Which engines can run a graph, and a plan: a graph with one engine, ready to run.

use std::fmt::Write as _;
use std::sync::Arc;

use cudarc::cudnn::sys::cudnnBackendAttributeName_t::*;
use cudarc::cudnn::sys::cudnnBackendAttributeType_t::*;
use cudarc::cudnn::sys::cudnnBackendBehaviorNote_t::CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
use cudarc::cudnn::sys::cudnnBackendDescriptorType_t::*;
use cudarc::cudnn::sys::cudnnBackendHeurMode_t::{self as Mode, *};
use cudarc::cudnn::sys::cudnnBackendNumericalNote_t::{self, *};
use cudarc::cudnn::sys::cudnnDataType_t as Data;

use super::api::{Answer, Refusal};
use super::cache::{Entry, Text};
use super::descriptor::{Address, Descriptor, MANY};
use super::graph::{Operand, Problem};
use super::lane::Lane;

/// An engine with its knobs set.
#[derive(Clone)]
pub struct Config {
    descriptor: Arc<Descriptor>,
    /// The engine's number and its knobs, such as `3:0=1,2=17`: the name it is remembered by.
    pub tag: String,
    notes: Vec<u32>,
    /// Whether a kernel is compiled when it is built, which takes about half a second.
    pub compiles: bool,
}

/// What an engine says of its numbers, for those who read plans.
const NOTES: [(cudnnBackendNumericalNote_t, &str); 6] = [
    (CUDNN_NUMERICAL_NOTE_TENSOR_CORE, "tensor cores"),
    (CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS, "rounds inputs"),
    (CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION, "sums in less than f32"),
    (CUDNN_NUMERICAL_NOTE_FFT, "FFT"),
    (CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC, "not deterministic"),
    (CUDNN_NUMERICAL_NOTE_WINOGRAD, "Winograd"),
];

impl Config {
    fn read(descriptor: Arc<Descriptor>) -> Answer<Self> {
        let engines = descriptor.get_descriptors(
            CUDNN_ATTR_ENGINECFG_ENGINE,
            CUDNN_BACKEND_ENGINE_DESCRIPTOR,
            1,
        )?;
        let (mut tag, mut notes, mut behaviour) = (String::new(), Vec::new(), Vec::new());
        for engine in engines {
            write!(tag, "{}", engine.get::<i64>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX)?).expect("memory");
            notes =
                engine.get_enums(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE)?;
            behaviour =
                engine.get_enums(CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE)?;
        }
        let kind = CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR;
        let knobs = descriptor.get_descriptors(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, kind, MANY)?;
        for (i, knob) in knobs.into_iter().enumerate() {
            let name = knob.get_enum(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE)?;
            let value = knob.get::<i64>(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE)?;
            write!(tag, "{}{name}={value}", if i == 0 { ":" } else { "," }).expect("memory");
        }
        let compiles = behaviour.contains(&(CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION as u32));
        Ok(Config { descriptor, tag, notes, compiles })
    }

    /// Engines of f32 are for parity: they must neither round their inputs (to TF32, say) nor
    /// transform them (Winograd's larger tiles cost digits), nor sum in less than f32, which no
    /// type's may. With `deterministic` the same inputs must give the same bits.
    fn is_wanted(&self, data: Data, deterministic: bool) -> bool {
        let has = |note| self.notes.contains(&(note as u32));
        let rounds =
            has(CUDNN_NUMERICAL_NOTE_TENSOR_CORE) || has(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS);
        let transforms = has(CUDNN_NUMERICAL_NOTE_WINOGRAD) || has(CUDNN_NUMERICAL_NOTE_FFT);
        let unwanted = has(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)
            || (data == Data::CUDNN_DATA_FLOAT && (rounds || transforms))
            || (deterministic && has(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC));
        !unwanted
    }
}

/// The heuristics' lists, the most trusted first.
pub const MODES: [(Mode, &str); 3] = [
    (CUDNN_HEUR_MODE_A, "heuristics A"),
    (CUDNN_HEUR_MODE_B, "heuristics B"),
    (CUDNN_HEUR_MODE_FALLBACK, "heuristics' last resort"),
];

/// What one list offers for `graph`, best first, without what is not wanted. Refused where that is
/// nothing.
pub fn configs(
    lane: &Lane,
    graph: &Arc<Descriptor>,
    mode: Mode,
    data: Data,
    deterministic: bool,
) -> Answer<Vec<Config>> {
    let heuristics = Descriptor::build(lane.api(), CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, |d| {
        d.set_descriptors(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, std::slice::from_ref(graph))?;
        d.set_enum(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, mode as u32)
    })?;
    let name = CUDNN_ATTR_ENGINEHEUR_RESULTS;
    let count = heuristics.count(name)?;
    let found = heuristics.get_descriptors(name, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, count)?;
    if found.is_empty() {
        return Err(lane.api().nothing());
    }
    let mut refusal =
        Refusal::unsupported("only engines that round, or give other bits each time, take it");
    let mut configs = Vec::new();
    for descriptor in found {
        match Config::read(descriptor) {
            Ok(config) if config.is_wanted(data, deterministic) => configs.push(config),
            Ok(_) => {}
            Err(e) => refusal = refusal.or(e),
        }
    }
    if configs.is_empty() { Err(refusal) } else { Ok(configs) }
}

/// A graph with its engine.
pub struct Plan {
    descriptor: Arc<Descriptor>,
    operands: Vec<Operand>,
    /// Bytes.
    pub workspace: usize,
    pub tag: String,
    /// What the engine says of its numbers.
    pub notes: Vec<String>,
    /// Whether it was made from a text.
    pub is_restored: bool,
    /// What it was built with, and runs with.
    lane: Arc<Lane>,
}

impl Plan {
    /// Refused where the engine cannot run the graph after all.
    pub fn build(lane: &Arc<Lane>, config: &Config, problem: &Problem) -> Answer<Self> {
        let known = NOTES.iter().filter(|(note, _)| config.notes.contains(&(*note as u32)));
        let notes = known.map(|(_, text)| text.to_string()).collect();
        Plan::new(lane, problem, (config.tag.clone(), notes), |d| {
            let configs = std::slice::from_ref(&config.descriptor);
            d.set_descriptors(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configs)
        })
    }

    /// From the text of a plan that was built before: what was compiled then is in it.
    pub fn restore(lane: &Arc<Lane>, text: &str, entry: &Entry, problem: &Problem) -> Answer<Self> {
        let name = (entry.tag.clone(), entry.notes.clone());
        let plan = Plan::new(lane, problem, name, |d| {
            d.set_text(CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, text)
        })?;
        Ok(Plan { is_restored: true, ..plan })
    }

    fn new(
        lane: &Arc<Lane>,
        problem: &Problem,
        (tag, notes): (String, Vec<String>),
        set: impl FnOnce(&mut Descriptor) -> Answer,
    ) -> Answer<Self> {
        let descriptor =
            Descriptor::build(lane.api(), CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, |d| {
                set(d)?;
                d.set_handle(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, lane.raw())
            })?;
        let workspace =
            descriptor.get::<i64>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)?.max(0) as usize;
        let operands = problem.operands().into_iter().map(|(operand, _)| operand).collect();
        Ok(Plan {
            descriptor,
            operands,
            workspace,
            tag,
            notes,
            is_restored: false,
            lane: lane.clone(),
        })
    }

    /// For [`Plan::restore`]. None where cuDNN has no text for such a plan.
    pub fn text(&self) -> Option<Text> {
        let text = self.descriptor.get_text(CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION);
        text.ok().filter(|text| !text.is_empty()).map(Text::new)
    }

    /// Queues the plan on the engine's stream. Addresses are those of the plan's operands, among
    /// others.
    ///
    /// # Safety
    /// Each operand's address is of device memory of its size, and `workspace` of what the plan
    /// wants.
    pub unsafe fn execute(&self, addresses: &[(Operand, u64)], workspace: u64) -> Answer {
        let (mut ids, mut pointers) = ([0i64; 5], [Address(0); 5]);
        let count = self.operands.len();
        for (i, &wanted) in self.operands.iter().enumerate() {
            let &(_, at) = addresses
                .iter()
                .find(|(operand, _)| *operand == wanted)
                .expect("every operand has an address");
            (ids[i], pointers[i]) = (wanted as i64, Address(at));
        }
        let (api, raw) = (self.lane.api(), self.lane.raw());
        // A finalized descriptor takes no attributes any more, so a pack is made for each call;
        // recorded steps make none.
        let pack = Descriptor::build(api, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, |d| {
            d.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &ids[..count])?;
            d.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, &pointers[..count])?;
            d.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, &[Address(workspace)])
        })?;
        // SAFETY: plan and pack are finalized and alive; the memory is the caller's promise.
        api.check("cudnnBackendExecute", unsafe {
            (api.execute)(raw, self.descriptor.raw(), pack.raw())
        })
    }
}
