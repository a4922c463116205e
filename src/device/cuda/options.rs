//! How the engine is opened, and who hears of its choices.

use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;

use crate::base::Result;

/// How the engine runs.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which GPU, as CUDA counts them.
    pub ordinal: usize,
    /// Launch op by op instead of replaying recorded steps, so that a profiler sees names.
    pub no_graph: bool,
    pub autotune: Autotune,
    /// Only cuDNN engines that give the same bits every time.
    pub deterministic: bool,
    /// Where chosen cuDNN engines are kept; None: nowhere.
    pub cache: Option<PathBuf>,
    pub watch: Watcher,
}

/// How far the choice of engines is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choosing {
    pub done: usize,
    pub total: usize,
    /// Of how many no plan is kept from an earlier start: those take their time.
    pub new: usize,
}

/// Hears how the choice of engines goes on, and may end it by an error.
#[derive(Clone, Default)]
pub struct Watcher(Option<Rc<dyn Fn(Choosing) -> Result<()>>>);

impl Watcher {
    pub fn new(hear: impl Fn(Choosing) -> Result<()> + 'static) -> Self {
        Watcher(Some(Rc::new(hear)))
    }

    pub(super) fn tell(&self, choosing: Choosing) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |hear| hear(choosing))
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Watcher" } else { "nobody" })
    }
}

/// How cuDNN's engines are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Autotune {
    /// The first that is offered
    Off,
    /// What was chosen before, else the first that is offered
    Cached,
    /// What was measured before; what was not is measured
    #[default]
    Load,
    /// All are measured
    Exhaustive,
}
