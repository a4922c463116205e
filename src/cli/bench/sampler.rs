//! The state of the device, sampled on a thread of its own while epochs are measured.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::device::{Gauge, State};
use crate::report::bench::conditions;

/// The time between two samples. A driver answers within a few milliseconds.
const EVERY: Duration = Duration::from_millis(50);

/// A thread that samples until the value is dropped.
pub struct Sampler {
    samples: Receiver<(Instant, State)>,
    seen: Vec<(Instant, State)>,
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Starts to sample.
    pub fn start(mut gauge: Box<dyn Gauge>) -> Self {
        let seen = vec![(Instant::now(), gauge.read())];
        let (send, samples) = channel();
        let (stop, stopped) = channel();
        // Where no thread can be started the one sample is all that is known.
        let thread = Builder::new().spawn(move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                if send.send((Instant::now(), gauge.read())).is_err() {
                    return;
                }
            }
        });
        Sampler { samples, seen, stop: Some(stop), thread: thread.ok() }
    }

    /// What the device was in since `start`. Shorter than a sample it is what the last one was.
    pub fn since(&mut self, start: Instant) -> State {
        self.seen.extend(self.samples.try_iter());
        let inside = self.seen.iter().filter(|(at, _)| *at >= start);
        let states: Vec<&State> = inside.map(|(_, state)| state).collect();
        match (&states[..], self.seen.last()) {
            ([], Some((_, last))) => conditions::of(&[last]),
            (states, _) => conditions::of(states),
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A gauge that panicked has said so.
            let _ = thread.join();
        }
    }
}
