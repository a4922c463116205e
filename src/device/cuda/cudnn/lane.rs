//! Handles of cuDNN, one a thread, and work that is spread over them.

use std::sync::Arc;

use cudarc::cudnn::sys::cudnnHandle_t;
use cudarc::driver::result::ctx;
use cudarc::driver::sys::{CUcontext, CUstream};

use super::api::{Answer, Api, Refusal};

/// More threads than this only wait for each other: a build is in part the driver's.
const MOST: usize = 8;

/// A handle on the engine's stream. A plan runs with the handle that it was built with.
pub struct Lane {
    api: &'static Api,
    raw: cudnnHandle_t,
}

// SAFETY: cuDNN wants a handle used by one thread at a time, which `Lanes::each` and the engine's
// own thread see to in turn.
unsafe impl Send for Lane {}
// SAFETY: as above.
unsafe impl Sync for Lane {}

impl Lane {
    fn new(api: &'static Api, stream: CUstream) -> Answer<Self> {
        let mut raw: cudnnHandle_t = std::ptr::null_mut();
        // SAFETY: the pointer is to a live handle variable; the context is current.
        api.check("cudnnCreate", unsafe { (api.create)(&mut raw) })?;
        let lane = Lane { api, raw };
        // SAFETY: `raw` was created above; the stream outlives it, see `Lanes::close`.
        api.check("cudnnSetStream", unsafe { (api.set_stream)(raw, stream.cast()) })?;
        Ok(lane)
    }

    pub fn api(&self) -> &'static Api {
        self.api
    }

    pub fn raw(&self) -> cudnnHandle_t {
        self.raw
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // SAFETY: created by `new`, destroyed once; plans hold their lane.
        unsafe { (self.api.destroy)(self.raw) };
    }
}

/// The engine's lanes: one to begin with, more as work comes.
pub struct Lanes {
    api: &'static Api,
    stream: CUstream,
    lanes: Vec<Arc<Lane>>,
}

/// The engine's context, for its threads.
#[derive(Clone, Copy)]
struct Context(CUcontext);

// SAFETY: the driver takes a context from any thread; the engine keeps it retained while they run.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// NOTE: a method, for closures would catch the pointer alone.
    fn enter(self) -> Answer {
        // SAFETY: the engine keeps the context retained.
        Ok(unsafe { ctx::set_current(self.0) }?)
    }
}

impl Lanes {
    pub fn new(api: &'static Api, stream: CUstream) -> Answer<Self> {
        Ok(Lanes { api, stream, lanes: vec![Arc::new(Lane::new(api, stream)?)] })
    }

    /// Lets go of all handles. Those of plans live as long as their plans.
    pub fn close(&mut self) {
        self.lanes.clear();
    }

    /// How many jobs are worth handing out at once: between them progress can be told.
    pub fn share(&self) -> usize {
        2 * threads()
    }

    /// Does `prepare` of each job here, in order, then `work` of each on threads with a lane of
    /// their own; answers in order.
    pub fn each<J: Sync, P: Send, T: Send>(
        &mut self,
        jobs: &[J],
        prepare: impl Fn(&Arc<Lane>, &J) -> Answer<P>,
        work: impl Fn(&Arc<Lane>, &J, P) -> Answer<T> + Sync,
    ) -> Answer<Vec<Answer<T>>> {
        while self.lanes.len() < threads().min(jobs.len()) {
            self.lanes.push(Arc::new(Lane::new(self.api, self.stream)?));
        }
        let context = Context(
            ctx::get_current()?.ok_or_else(|| Refusal::unsupported("no context is current"))?,
        );
        let count = self.lanes.len();
        let mut shares: Vec<Vec<_>> = self.lanes.iter().map(|_| Vec::new()).collect();
        for (i, job) in jobs.iter().enumerate() {
            shares[i % count].push((i, job, prepare(&self.lanes[i % count], job)));
        }
        let mut answers: Vec<Option<Answer<T>>> = jobs.iter().map(|_| None).collect();
        let work = &work;
        std::thread::scope(|scope| {
            let busy = self.lanes.iter().zip(shares).filter(|(_, share)| !share.is_empty());
            let running: Vec<_> = busy
                .map(|(lane, share)| {
                    scope.spawn(move || {
                        let entered = context.enter();
                        let done = share.into_iter().map(|(i, job, prepared)| {
                            (
                                i,
                                entered
                                    .clone()
                                    .and(prepared)
                                    .and_then(|prepared| work(lane, job, prepared)),
                            )
                        });
                        done.collect::<Vec<_>>()
                    })
                })
                .collect();
            for thread in running {
                let done = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                done.into_iter().for_each(|(i, answer)| answers[i] = Some(answer));
            }
        });
        Ok(answers.into_iter().map(|answer| answer.expect("every job is some lane's")).collect())
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MOST)
}
