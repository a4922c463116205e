//! Steps recorded as CUDA graphs.

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use crate::base::{self, tell};
use crate::device::cuda::Cuda;
use crate::device::cuda::error::driver_error;
use crate::device::{Engine, Ran, Taken};

/// What the engine has of a fixed sequence of ops. The first run is plain (libraries load what they
/// need), the second is recorded, later ones are replayed.
enum Progress {
    /// It ran once.
    Warm,
    Recorded(Exec),
    /// It cannot be recorded, and is launched op by op.
    Plain,
}

/// An instantiated CUDA graph.
pub(super) struct Exec(sys::CUgraphExec);

impl Exec {
    /// Records what `queue` queues on `stream`, which does not run. `refused`: what a failed call
    /// of the driver means.
    pub(super) fn record<E>(
        stream: sys::CUstream,
        queue: impl FnOnce() -> Result<(), E>,
        refused: impl Fn(DriverError) -> E,
    ) -> Result<Self, E> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as the engine; what is captured is queued by this thread
        // between begin and end.
        unsafe { result::stream::begin_capture(stream, mode) }.map_err(&refused)?;
        let queued = queue();
        // SAFETY: as above.
        let graph = unsafe { result::stream::end_capture(stream) }.map(Graph);
        // What failed says more than the capture that it broke.
        queued?;
        let graph = graph.map_err(&refused)?;
        // SAFETY: the graph was captured above.
        unsafe { result::graph::instantiate(graph.0, sys::CUgraphInstantiate_flags(0)) }
            .map(Exec)
            .map_err(refused)
    }

    /// Queues what was recorded.
    ///
    /// # Safety
    /// The memory that it touches is where it was.
    pub(super) unsafe fn launch(&self, stream: sys::CUstream) -> Result<(), DriverError> {
        // SAFETY: graph and stream are alive; the memory is the caller's promise.
        unsafe { result::graph::launch(self.0, stream) }
    }
}

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

impl Cuda {
    /// [`Engine::replay_ops`].
    pub(super) fn record_or_replay(
        &mut self,
        taken: &mut Taken,
        ops: &mut dyn FnMut(&mut dyn Engine) -> base::Result<()>,
    ) -> base::Result<Ran> {
        if self.options.no_graph {
            return ops(self).map(|()| Ran::Plain);
        }
        let Some(progress) = taken.0.as_mut().and_then(|any| any.downcast_mut()) else {
            ops(self)?;
            taken.0 = Some(Box::new(Progress::Warm));
            return Ok(Ran::Plain);
        };
        if let Progress::Warm = progress {
            *progress = self.recorded(ops);
        }
        match progress {
            Progress::Recorded(exec) => {
                // SAFETY: the graph only touches pools, which stay where they are until `reserve`.
                unsafe { exec.launch(self.stream) }
                    .map_err(|e| driver_error("replaying a step", e))?;
                Ok(Ran::Recorded)
            }
            // What was captured before it failed has not run. Should an op itself be at fault it
            // fails again, and says so.
            Progress::Warm | Progress::Plain => ops(self).map(|()| Ran::Plain),
        }
    }

    /// Records `ops`, which do not run.
    fn recorded(&mut self, ops: &mut dyn FnMut(&mut dyn Engine) -> base::Result<()>) -> Progress {
        let refused = |e| driver_error("recording a step", e);
        let noted = self.trace.place();
        self.recording = true;
        let recorded = Exec::record(self.stream, || ops(self), refused);
        self.recording = false;
        if recorded.is_err() {
            self.trace.cut(noted);
        }
        match recorded {
            Ok(exec) => Progress::Recorded(exec),
            Err(why) => {
                if !std::mem::replace(&mut self.said_plain, true) {
                    tell(format_args!(
                        "a step cannot be recorded and is launched op by op, which is slower: {why}"
                    ));
                }
                Progress::Plain
            }
        }
    }
}
