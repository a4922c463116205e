//! The placement of all memory before any is allocated: a [`Layout`] hands out [`Slot`]s and adds
//! up what each pool needs, and an engine then allocates each pool once.

use std::fmt::{self, Display};

use crate::base::Error;
use crate::device::Dtype;
use crate::device::slot::{ALIGN, Act, Element, POOLS, Pool, Slot};

/// A slot that was handed out: one line of the printed table.
#[derive(Clone, Debug)]
struct Row {
    pool: Pool,
    name: String,
    offset: usize,
    bytes: usize,
}

/// The placement of slots in one pool.
#[derive(Clone, Debug, Default)]
struct PoolPlan {
    /// The intervals (start, end) of live slots, in bytes, sorted.
    live: Vec<(usize, usize)>,
    bytes: usize,
}

/// The plan of all pools, for an engine whose activations have one element type. A slot is placed
/// first-fit among those of its pool that are still alive.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The element type of activations.
    pub dtype: Dtype,
    pools: [PoolPlan; POOLS.len()],
    rows: Vec<Row>,
    /// What needs memory of the host beside the pools, and how many bytes of it.
    beside: Vec<(&'static str, usize)>,
}

impl Layout {
    /// A layout of empty pools.
    pub fn new(dtype: Dtype) -> Self {
        Layout { dtype, pools: Default::default(), rows: Vec::new(), beside: Vec::new() }
    }

    /// A new slot of `len` elements in `pool`, alive until [`Layout::release`] or
    /// [`Layout::restart`]. `name` is for the printed table.
    pub fn take<T: Element>(&mut self, pool: Pool, name: impl Display, len: usize) -> Slot<T> {
        self.place(pool, name, len, size_of::<T>())
    }

    /// Like [`Layout::take`], for `len` activations.
    pub fn acts(&mut self, pool: Pool, name: impl Display, len: usize) -> Slot<Act> {
        self.place(pool, name, len, self.dtype.bytes())
    }

    fn place<T>(&mut self, pool: Pool, name: impl Display, len: usize, width: usize) -> Slot<T> {
        if len == 0 {
            return Slot::empty();
        }
        Slot::of_width(pool, self.fit(pool, name.to_string(), len * width), len, width)
    }

    /// Finds room for `bytes` bytes, first-fit, and returns its offset.
    fn fit(&mut self, pool: Pool, name: String, bytes: usize) -> usize {
        let bytes = bytes.next_multiple_of(ALIGN);
        let plan = &mut self.pools[pool as usize];
        let (mut offset, mut at) = (0, plan.live.len());
        for (i, &(start, end)) in plan.live.iter().enumerate() {
            if offset + bytes <= start {
                at = i;
                break;
            }
            offset = end;
        }
        plan.live.insert(at, (offset, offset + bytes));
        plan.bytes = plan.bytes.max(offset + bytes);
        self.rows.push(Row { pool, name, offset, bytes });
        offset
    }

    /// Ends a slot's life: later slots may take its place. Panics if it is not alive.
    pub fn release<T>(&mut self, slot: Slot<T>) {
        if slot.len == 0 {
            return;
        }
        let live = &mut self.pools[slot.pool as usize].live;
        let at = live
            .iter()
            .position(|&(start, _)| start == slot.offset)
            .expect("released slot is alive");
        live.remove(at);
    }

    /// Ends the life of every slot of `pool`, so that the next program uses the same memory.
    pub fn restart(&mut self, pool: Pool) {
        self.pools[pool as usize].live.clear();
    }

    /// Counts memory of the host that will be needed for a while, such as copies of what is saved.
    /// No engine allocates it, but one whose pools lie in the same memory leaves room for it.
    pub fn beside(&mut self, name: &'static str, bytes: usize) {
        self.beside.push((name, bytes));
    }

    /// Bytes of the host's memory that are needed beside the pools.
    pub fn beside_bytes(&self) -> usize {
        self.beside.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Bytes that `pool` needs: the largest extent so far.
    pub fn bytes(&self, pool: Pool) -> usize {
        self.pools[pool as usize].bytes
    }

    /// The error for a plan of `total` bytes, scratch included, that does not fit into `free`
    /// bytes. `kind` names the memory.
    pub fn too_large(&self, kind: &'static str, total: usize, free: usize) -> Error {
        // These pools grow with the batch. Scratch may grow or not; it is counted as fixed.
        let grows = [Pool::Acts, Pool::Staging, Pool::Images]
            .map(|pool| self.bytes(pool))
            .iter()
            .sum::<usize>()
            .max(1);
        let fixed = total.saturating_sub(grows);
        let share = (free > fixed).then(|| (free - fixed) as f64 / grows as f64);
        Error::Memory { kind, wanted: total >> 20, free: free >> 20, fixed: fixed >> 20, share }
    }

    /// Bytes that all pools need, without scratch that ops ask for.
    pub fn total_bytes(&self) -> usize {
        POOLS.iter().map(|&p| self.bytes(p)).sum()
    }
}

impl Layout {
    /// The plan as JSON: for each pool its bytes, and its slots with name, offset and bytes; last,
    /// as one more pool, what is needed beside them.
    pub fn json(&self) -> serde_json::Value {
        let pool = |pool: &Pool| {
            let rows = self.rows.iter().filter(|row| row.pool == *pool);
            let slots = rows.map(
                |row| serde_json::json!({ "name": row.name, "offset": row.offset, "bytes": row.bytes }),
            );
            serde_json::json!({
                "pool": format!("{pool:?}").to_lowercase(),
                "bytes": self.bytes(*pool),
                "slots": slots.collect::<Vec<_>>()
            })
        };
        let beside = self
            .beside
            .iter()
            .map(|(name, bytes)| serde_json::json!({ "name": name, "offset": 0, "bytes": bytes }));
        let beside = serde_json::json!({
            "pool": "beside", "bytes": self.beside_bytes(), "slots": beside.collect::<Vec<_>>()
        });
        POOLS.iter().map(pool).chain([beside]).collect()
    }
}

/// The plan as a table: pool, name, offset, MiB; and what is needed beside the pools.
impl Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
        for pool in POOLS {
            writeln!(
                f,
                "{:<8} {:>10.2} MiB",
                format!("{pool:?}").to_lowercase(),
                mib(self.bytes(pool))
            )?;
            for r in self.rows.iter().filter(|r| r.pool == pool) {
                writeln!(f, "  {:<44} at {:>12} {:>10.3} MiB", r.name, r.offset, mib(r.bytes))?;
            }
        }
        writeln!(f, "beside   {:>10.2} MiB of the host, for a while", mib(self.beside_bytes()))?;
        for (name, bytes) in &self.beside {
            writeln!(f, "  {name:<44} {:>15} {:>10.3} MiB", "", mib(*bytes))?;
        }
        write!(f, "total    {:>10.2} MiB of the pools", mib(self.total_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_that_live_together_do_not_overlap_and_dead_ones_are_reused() {
        let mut l = Layout::new(Dtype::Bf16);
        let a = l.take::<f32>(Pool::Acts, "a", 17);
        let b = l.take::<u8>(Pool::Acts, "b", 65);
        let c = l.take::<f32>(Pool::Acts, "c", 3);
        assert_eq!((a.offset, b.offset, c.offset), (0, 128, 256));
        l.release(b);
        let d = l.take::<f32>(Pool::Acts, "d", 33);
        assert_eq!(d.offset, 320, "does not fit the gap of 128 bytes");
        assert_eq!(l.take::<f32>(Pool::Acts, "e", 32).offset, 128);
        assert_eq!(l.bytes(Pool::Acts), 320 + 192);
        l.restart(Pool::Acts);
        assert_eq!(l.take::<f32>(Pool::Acts, "f", 1).offset, 0);
        assert_eq!(l.bytes(Pool::Acts), 320 + 192, "a pool is as large as its largest program");
        assert!(l.to_string().contains("e  "));
        l.beside("a copy", 3 << 20);
        l.beside("another", 1 << 20);
        assert_eq!(l.beside_bytes(), 4 << 20);
        let text = l.to_string();
        assert!(text.contains("beside         4.00 MiB") && text.contains("3.000 MiB"), "{text}");
        let acts = l.acts(Pool::Acts, "activations", 64);
        assert_eq!((acts.offset, acts.len, acts.bytes()), (64, 64, 128), "two bytes each");
    }

    #[test]
    fn an_empty_slot_takes_nothing_and_ends_nobodys_life() {
        let mut l = Layout::new(Dtype::Bf16);
        let a = l.take::<f32>(Pool::Acts, "a", 16);
        let none = l.take::<f32>(Pool::Acts, "none", 0);
        l.release(none);
        assert_eq!((none.len, l.bytes(Pool::Acts)), (0, 64));
        l.release(a);
    }
}
