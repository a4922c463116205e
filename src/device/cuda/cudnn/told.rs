//! What is said of the choice: reports, warnings and refusals.

use super::api::{Class, Refusal};
use super::ways::{Ask, Way};
use super::{Choice, Found, Handle};
use crate::base::{Error, tell};

impl Handle {
    /// Why `way` cannot be taken, where that was found out.
    pub(super) fn refusal(&self, ask: &Ask, way: Way) -> Option<&Refusal> {
        self.answers.get(&ask.problem(way))?.as_ref().err()
    }

    /// Says once that cuDNN could do better if it were installed as it should be.
    pub(super) fn warn(&mut self, ask: &Ask) {
        let mut refusals = ask.ways().into_iter().filter_map(|way| self.refusal(ask, way));
        if !self.has_warned
            && let Some(refusal) = refusals.find(|refusal| refusal.class == Class::Installation)
        {
            tell(format_args!(
                "cuDNN does less than it could: {}; {}",
                refusal.text,
                refusal.remedy()
            ));
            self.has_warned = true;
        }
    }

    pub(super) fn choice(&self, ask: &Ask, way: Way, found: &Found) -> Choice {
        let why_not = |other: Way| match (
            self.refusal(ask, other),
            self.cost(ask, other),
            self.cost(ask, way),
        ) {
            (Some(refusal), ..) => Some(format!("{other}: {}", refusal.text)),
            (None, Some(its), Some(this)) => {
                Some(format!("{other}: it would take {its:.1} µs, this takes {this:.1} µs"))
            }
            _ => None,
        };
        Choice {
            op: ask.task.to_string(),
            shape: super::shape_of(ask.spec),
            way: way.to_string(),
            engine: found.entry.tag.clone(),
            notes: found.entry.notes.clone(),
            microseconds: found.entry.microseconds,
            like: found.entry.like,
            workspace: found.entry.workspace,
            others: ask
                .ways()
                .into_iter()
                .filter(|other| *other != way)
                .filter_map(why_not)
                .collect(),
        }
    }

    pub(super) fn no_way(&self, ask: &Ask) -> Error {
        let refusals = ask.ways().into_iter().filter_map(|way| self.refusal(ask, way).cloned());
        let refusal = refusals
            .reduce(Refusal::or)
            .unwrap_or_else(|| Refusal::unsupported("there is no way to do it"));
        let text = match refusal.class {
            Class::Unsupported => format!("it has no engine for it: {}", refusal.text),
            _ => refusal.text,
        };
        let op = format!(
            "{} of {} in {}",
            ask.task,
            super::shape_of(ask.spec),
            super::name_of(ask.data)
        );
        self.error(op, &Refusal { text, class: refusal.class })
    }

    pub(super) fn error(&self, op: String, refusal: &Refusal) -> Error {
        let what = format!("cuDNN {}: {}", self.version(), refusal.text);
        Error::Device { op, what, remedy: refusal.remedy().into() }
    }
}
