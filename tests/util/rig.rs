//! A small arena for one op: inputs as given, outputs poisoned, every buffer between sentinels.

use picie::device::cpu::Cpu;
use picie::device::ops::Memory;
use picie::device::{Element, Layout, Pool, Slot};

const GUARD: [u8; 64] = [0xA5; 64];

/// What the host writes into the arena once it exists.
type Fill = Box<dyn FnOnce(&mut Cpu)>;

pub struct Rig {
    pub dev: Cpu,
    layout: Layout,
    fills: Vec<Fill>,
    guards: Vec<Slot<u8>>,
}

impl Rig {
    pub fn new() -> Self {
        let mut rig = Rig { dev: Cpu::new(), layout: Layout::default(), fills: Vec::new(), guards: Vec::new() };
        rig.guard();
        rig
    }

    fn guard(&mut self) {
        let guard = self.layout.take(Pool::Acts, "guard", GUARD.len());
        self.guards.push(guard);
    }

    /// A slot that holds `data`.
    pub fn input<T: Element>(&mut self, data: &[T]) -> Slot<T> {
        let slot = self.layout.take(Pool::Acts, "input", data.len());
        self.guard();
        let data = data.to_vec();
        self.fills.push(Box::new(move |dev| dev.write(slot, &data).unwrap()));
        slot
    }

    /// A slot full of 0xFF bytes: NaN, or the largest integer.
    pub fn output<T: Element>(&mut self, len: usize) -> Slot<T> {
        let poison: T = bytemuck::pod_read_unaligned(&vec![0xFF; size_of::<T>()]);
        self.input(&vec![poison; len])
    }

    /// A slot of zeros, for what an op adds to.
    pub fn zeros<T: Element>(&mut self, len: usize) -> Slot<T> {
        self.input(&vec![T::zeroed(); len])
    }

    /// Allocates and fills. Plans must have been made before.
    pub fn ready(&mut self) {
        self.dev.reserve(&self.layout).unwrap();
        for guard in &self.guards {
            self.dev.write(*guard, &GUARD).unwrap();
        }
        for fill in self.fills.drain(..) {
            fill(&mut self.dev);
        }
    }

    /// Reads a slot, and checks that no sentinel was touched.
    #[track_caller]
    pub fn read<T: Element>(&mut self, slot: Slot<T>) -> Vec<T> {
        for guard in self.guards.clone() {
            assert_eq!(self.dev.read(guard).unwrap(), GUARD, "written outside of a buffer near {guard:?}");
        }
        self.dev.read(slot).unwrap()
    }
}
