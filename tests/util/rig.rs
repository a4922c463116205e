//! A small arena for one op: inputs as given, outputs poisoned, every buffer between sentinels.

use picie::device::cpu::Cpu;
use picie::device::cuda::{Cuda, Options};
use picie::device::ops::Memory;
use picie::device::{Activation, Element, Layout, Pool, Slot};

use crate::util::softgpu;

const GUARD: [u8; 64] = [0xA5; 64];

/// What the host writes into the arena once it exists.
type Fill<B> = Box<dyn FnOnce(&mut B)>;

pub struct Rig<B: Memory = Cpu> {
    pub dev: B,
    layout: Layout,
    fills: Vec<Fill<B>>,
    guards: Vec<Slot<u8>>,
    /// Makes a sentinel deadly to touch, where the engine can.
    forbid: fn(&B, Slot<u8>),
}

impl Rig {
    pub fn new() -> Self {
        Rig::on(Cpu::new(), |_, _| ())
    }

    /// On the GPU, or the software GPU. None where this machine can have neither.
    pub fn cuda<A: Activation>() -> Option<Rig<Cuda<A>>> {
        softgpu::load().then(|| Rig::with(Cuda::new(Options::default()).unwrap()))
    }
}

impl<A: Activation> Rig<Cuda<A>> {
    /// On an engine with options of its own.
    pub fn with(dev: Cuda<A>) -> Self {
        Rig::on(dev, |dev, guard| softgpu::forbid(dev.address(guard), guard.len))
    }
}

impl<B: Memory> Rig<B> {
    fn on(dev: B, forbid: fn(&B, Slot<u8>)) -> Self {
        let mut rig =
            Rig { dev, layout: Layout::default(), fills: Vec::new(), guards: Vec::new(), forbid };
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

    /// A slot of activations that holds `data`, rounded.
    pub fn act(&mut self, data: &[f32]) -> Slot<B::Act> {
        let rounded: Vec<B::Act> = data.iter().map(|&x| B::Act::round(x)).collect();
        self.input(&rounded)
    }

    /// A slot full of 0xFF bytes: NaN, or the largest integer.
    pub fn output<T: Element>(&mut self, len: usize) -> Slot<T> {
        let poison: T = bytemuck::pod_read_unaligned(&vec![0xFF; size_of::<T>()]);
        self.input(&vec![poison; len])
    }

    pub fn act_output(&mut self, len: usize) -> Slot<B::Act> {
        self.output(len)
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
        for guard in &self.guards {
            (self.forbid)(&self.dev, *guard);
        }
    }

    /// Reads a slot, and checks that no sentinel was touched.
    #[track_caller]
    pub fn read<T: Element>(&mut self, slot: Slot<T>) -> Vec<T> {
        for guard in self.guards.clone() {
            assert_eq!(
                self.dev.read(guard).unwrap(),
                GUARD,
                "written outside of a buffer near {guard:?}"
            );
        }
        self.dev.read(slot).unwrap()
    }

    #[track_caller]
    pub fn read_act(&mut self, slot: Slot<B::Act>) -> Vec<f32> {
        self.read(slot).into_iter().map(B::Act::widen).collect()
    }
}
