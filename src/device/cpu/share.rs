//! Pieces of work over threads, each thread with a piece of scratch of its own.

use std::sync::Mutex;

/// Number of threads that [`share`] uses; plans size scratch by it.
pub fn workers() -> usize {
    rayon::current_num_threads()
}

/// Runs `work` on every item. Items are taken one by one by whichever thread is free, so `work` on
/// an item must not depend on others; `scratch` is cut into one part a thread.
pub fn share<I: Send>(
    items: impl Iterator<Item = I> + Send,
    mut scratch: &mut [f32],
    work: impl Fn(I, &mut [f32]) + Sync,
) {
    let items = Mutex::new(items);
    let per = scratch.len() / workers();
    rayon::scope(|s| {
        for _ in 0..workers() {
            let (part, rest) = std::mem::take(&mut scratch).split_at_mut(per);
            scratch = rest;
            let (items, work) = (&items, &work);
            s.spawn(move |_| {
                loop {
                    // NOTE: the guard must be gone before `work` runs, or threads would wait for
                    // each other.
                    let item = items.lock().expect("no thread panicked").next();
                    let Some(item) = item else { break };
                    work(item, part);
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once_and_each_thread_has_its_own_scratch() {
        let mut out = vec![0; 103];
        let mut scratch = vec![0.0; 3 * workers() + 2];
        share(out.iter_mut().enumerate(), &mut scratch, |(i, o), mine| {
            assert_eq!(mine.len(), (3 * workers() + 2) / workers());
            mine.fill(i as f32);
            *o += mine[2] as usize + 1;
        });
        assert!(out.iter().enumerate().all(|(i, &o)| o == i + 1));
    }
}
