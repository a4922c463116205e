//! Steps recorded as CUDA graphs.

use cudarc::driver::{result, sys};

use crate::base::{Result, tell};
use crate::device::Activation;
use crate::device::cuda::context::{Cuda, driver_error};

/// A fixed sequence of ops: the first run is plain (libraries load what they need), the second is recorded, later ones are
/// replayed.
#[derive(Default)]
pub enum Recording {
    #[default]
    New,
    Warm,
    Recorded(Exec),
    /// What cannot be recorded is launched op by op.
    Plain,
}

/// An instantiated CUDA graph.
pub struct Exec(sys::CUgraphExec);

impl Drop for Exec {
    fn drop(&mut self) {
        // SAFETY: instantiated once, destroyed once; the driver waits for a launch in flight.
        let _ = unsafe { result::graph::exec_destroy(self.0) };
    }
}

/// What was captured, destroyed with it.
struct Graph(sys::CUgraph);

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: captured once, destroyed once; what was instantiated from it lives on.
        let _ = unsafe { result::graph::destroy(self.0) };
    }
}

impl<A: Activation> Cuda<A> {
    pub(super) fn record_or_replay(
        &mut self,
        recording: &mut Recording,
        mut ops: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        if self.options.no_graph {
            return ops(self);
        }
        match recording {
            Recording::New => {
                ops(self)?;
                *recording = Recording::Warm;
                return Ok(());
            }
            Recording::Warm => match self.capture(&mut ops) {
                Ok(exec) => *recording = Recording::Recorded(exec),
                Err(why) => {
                    if !std::mem::replace(&mut self.said_plain, true) {
                        tell(format_args!(
                            "a step cannot be recorded and is launched op by op, which is slower: {why}"
                        ));
                    }
                    *recording = Recording::Plain;
                }
            },
            Recording::Recorded(_) | Recording::Plain => {}
        }
        match recording {
            // SAFETY: the graph only touches pools, which stay where they are until `reserve`.
            Recording::Recorded(exec) => {
                unsafe { result::graph::launch(exec.0, self.stream) }.map_err(|e| driver_error("replaying a step", e))
            }
            // What was captured before it failed has not run. Should an op itself be at fault it fails again, and says so.
            _ => ops(self),
        }
    }

    /// Records `ops`, which do not run.
    fn capture(&mut self, ops: &mut impl FnMut(&mut Self) -> Result<()>) -> Result<Exec> {
        let e = |e| driver_error("recording a step", e);
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is the engine's; what is captured is queued by this thread between begin and end.
        unsafe { result::stream::begin_capture(self.stream, mode) }.map_err(e)?;
        let queued = ops(self);
        // SAFETY: as above.
        let graph = unsafe { result::stream::end_capture(self.stream) }.map(Graph).map_err(e);
        // An op that failed says more than the capture that it broke.
        queued?;
        let graph = graph?;
        // SAFETY: the graph was captured above.
        unsafe { result::graph::instantiate(graph.0, sys::CUgraphInstantiate_flags(0)) }.map(Exec).map_err(e)
    }
}
