//! Places in the order of a stream's work, which the host and other streams can wait for.

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

/// An event, destroyed with it.
pub(super) struct Event(sys::CUevent);

impl Event {
    /// `timed`: its time can be asked for.
    pub fn new(timed: bool) -> Result<Self, DriverError> {
        use sys::CUevent_flags::*;
        result::event::create(if timed { CU_EVENT_DEFAULT } else { CU_EVENT_DISABLE_TIMING })
            .map(Event)
    }

    /// Marks what is queued on `stream`, in place of what it marked before.
    pub fn record(&self, stream: sys::CUstream) -> Result<(), DriverError> {
        // SAFETY: the event is alive; streams live as long as the engine.
        unsafe { result::event::record(self.0, stream) }
    }

    /// Records a mark into what `stream` captures, which is set anew by each replay. It orders
    /// nothing, and may be waited for as if it were not part of a capture.
    pub fn record_each_replay(&self, stream: sys::CUstream) -> Result<(), DriverError> {
        let external = sys::CUevent_record_flags_enum::CU_EVENT_RECORD_EXTERNAL;
        // SAFETY: as above; the event lives as long as the marks of the recording.
        unsafe { sys::cuEventRecordWithFlags(self.0, stream, external as u32) }.result()
    }

    /// Waits on the host until what was marked is done.
    pub fn wait(&self) -> Result<(), DriverError> {
        // SAFETY: the event is alive.
        unsafe { result::event::synchronize(self.0) }
    }

    /// Lets what is queued on `stream` from now on wait until what was marked is done.
    pub fn gate(&self, stream: sys::CUstream) -> Result<(), DriverError> {
        // SAFETY: as above.
        unsafe {
            result::stream::wait_event(
                stream,
                self.0,
                sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT,
            )
        }
    }

    /// Milliseconds from `start` to this one; both have been waited for, and are timed.
    pub fn since(&self, start: &Event) -> Result<f32, DriverError> {
        // SAFETY: both events are alive.
        unsafe { result::event::elapsed(start.0, self.0) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once; the driver keeps what still waits for it.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}
