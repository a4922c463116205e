//! Plans that can run a problem, as the heuristics list them or as it was known before.

use std::cell::LazyCell;
use std::sync::Arc;

use super::api::{Answer, Class, Refusal};
use super::cache::{Entry, Text};
use super::descriptor::Descriptor;
use super::engine::{Config, MODES, Plan, configs};
use super::graph::Problem;
use super::lane::Lane;

/// Engines that want more workspace than this are passed over.
const WORKSPACE: usize = 1 << 30;

/// How many plans are built for a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Most {
    /// The heuristics' first.
    One,
    /// Their first three, or two where kernels are compiled: they are seldom so wrong.
    Shortlist,
    All,
}

impl Most {
    fn count(self, compiles: bool) -> usize {
        match self {
            Most::One => 1,
            Most::Shortlist => {
                if compiles {
                    2
                } else {
                    3
                }
            }
            Most::All => usize::MAX,
        }
    }
}

/// What is to be built.
#[derive(Clone, Debug)]
pub struct Order {
    pub problem: Problem,
    /// The engine that is wanted: of its plan where it has one.
    pub hint: Option<Entry>,
    /// Engines not to try.
    pub bad: Vec<String>,
    pub most: Most,
}

/// The plans of an order, best first as the heuristics see it; one where the engine that is wanted
/// is among them, or one that differs from it in knobs only. Each is built when its turn comes, as
/// that may compile a kernel. Refused where there is none: the first refusal that says more than
/// that something is not supported.
pub fn build(
    lane: &Arc<Lane>,
    order: &Order,
    graph: Arc<Descriptor>,
    deterministic: bool,
) -> Answer<Vec<Plan>> {
    let (problem, graph) = (&order.problem, &graph);
    if let Some(entry) = &order.hint
        && let Some(text) = entry.plan.as_ref().and_then(Text::whole)
        && let Ok(plan) = Plan::restore(lane, text, entry, problem)
    {
        return Ok(vec![plan]);
    }
    let lists = MODES.map(|(mode, name)| {
        LazyCell::new(move || {
            configs(lane, graph, mode, problem.data, deterministic)
                .map_err(|refusal| refusal.at(name))
        })
    });
    let offered = || lists.iter().filter_map(|list| list.as_ref().ok()).flatten();
    let plan = |config: &Config| -> Answer<Plan> {
        let plan = Plan::build(lane, config, problem)?;
        match plan.workspace {
            0..=WORKSPACE => Ok(plan),
            bytes => {
                Err(Refusal::unsupported(format!("it wants {} MiB of workspace", bytes >> 20)))
            }
        }
    };
    let (mut plans, mut seen, mut refusal) = (Vec::new(), order.bad.clone(), None);
    if let Some(hint) = &order.hint {
        let number = |tag: &str| tag.split(':').next().map(str::to_string);
        let wanted = offered().find(|config| config.tag == hint.tag);
        let wanted =
            wanted.or_else(|| offered().find(|config| number(&config.tag) == number(&hint.tag)));
        if let Some(config) = wanted {
            match plan(config) {
                Ok(plan) => return Ok(vec![plan]),
                Err(e) => note(&mut refusal, e.at(&format!("building {}", config.tag))),
            }
            // NOTE: a kernel is compiled of a configuration once; the second time cuDNN says that
            // it cannot.
            seen.push(config.tag.clone());
        }
    }
    for list in &lists {
        for config in list.as_ref().map_or(&[][..], Vec::as_slice) {
            if seen.contains(&config.tag) || plans.len() >= order.most.count(config.compiles) {
                continue;
            }
            seen.push(config.tag.clone());
            match plan(config) {
                Ok(plan) => plans.push(plan),
                Err(e) => note(&mut refusal, e.at(&format!("building {}", config.tag))),
            }
        }
        if let Err(e) = &**list {
            note(&mut refusal, e.clone());
        }
        // The next list is for what this one does not know.
        if !plans.is_empty() && order.most != Most::All {
            break;
        }
    }
    let none = || Refusal {
        class: Class::Unsupported,
        text: "none of its engines takes this shape, type and epilogue".into(),
    };
    if plans.is_empty() { Err(refusal.unwrap_or_else(none)) } else { Ok(plans) }
}

fn note(first: &mut Option<Refusal>, next: Refusal) {
    *first = Some(first.take().map_or(next.clone(), |first| first.or(next)));
}
