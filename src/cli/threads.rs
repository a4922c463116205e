//! The threads that compute.

use rayon::ThreadPoolBuilder;

use crate::base::say::warn;
use crate::base::{Error, Result};

/// Does `work` on a thread for each core, or as many as `RAYON_NUM_THREADS` says. Where the system
/// does not start so many (`ulimit -u` or `-v`, the limit of a container), it is done on fewer,
/// down to the one that is there, and that is said.
pub fn on_all(work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    let Err(e) = ThreadPoolBuilder::new().build_global() else { return work() };
    let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|text| text.parse().ok());
    // None is asked for by 0, too.
    let asked = asked.filter(|&threads: &usize| threads > 0);
    let all = asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let halves = std::iter::successors(Some(all / 2), |threads| Some(threads / 2));
    let started = halves.take_while(|&threads| threads > 0).find_map(|threads| {
        Some((threads, ThreadPoolBuilder::new().num_threads(threads).build().ok()?))
    });
    let (threads, pool) = match started {
        Some(started) => started,
        None => {
            let own = ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
            let none =
                |e| Error::input(format!("no thread can compute: {e}"), "see ulimit -u and -v");
            (1, own.map_err(none)?)
        }
    };
    warn(format_args!(
        "warning: {threads} of {all} threads compute: the system starts no more ({e}; see ulimit -u and -v)"
    ));
    pool.install(work)
}
