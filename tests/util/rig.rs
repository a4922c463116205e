//! A small arena for a case: inputs as given, outputs poisoned, every buffer followed by a
//! sentinel.

use std::any::Any;

use picie::device::cpu::Cpu;
use picie::device::cuda::{Cuda, Options};
use picie::device::{Act, Dtype, Element, Engine, Layout, Pool, Slot};

use crate::util::results::{Results, Values};
use crate::util::{signed, softgpu};

/// Bytes of a sentinel, at least, and what they are.
const GUARD: usize = 64;
const SENTINEL: u8 = 0xA5;

/// Where a case runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum On {
    Cpu,
    Cuda,
}

impl On {
    /// The engines that this machine can have.
    pub fn all() -> Vec<On> {
        if softgpu::load() { vec![On::Cpu, On::Cuda] } else { vec![On::Cpu] }
    }

    /// A rig with activations in f32.
    pub fn rig(self) -> Rig {
        match self {
            On::Cpu => Rig::cpu(Dtype::F32),
            On::Cuda => Rig::cuda(Dtype::F32).expect("it is one of all()"),
        }
    }
}

/// Plain data that can be a result.
pub trait Number: Element {
    /// What a slot begins with to which an op adds.
    fn start(len: usize) -> Vec<Self>;

    fn values(data: Vec<Self>) -> Values;
}

impl Number for f32 {
    fn start(len: usize) -> Vec<f32> {
        signed(4, len)
    }

    fn values(data: Vec<f32>) -> Values {
        Values::Floats(data)
    }
}

macro_rules! integers {
    ($($t:ty),+) => {$(
        impl Number for $t {
            fn start(len: usize) -> Vec<$t> {
                (0..len).map(|i| (100 + i % 7) as $t).collect()
            }

            fn values(data: Vec<$t>) -> Values {
                Values::Integers(data.into_iter().map(u32::from).collect())
            }
        }
    )+};
}
integers!(u8, u16, u32);

/// Bytes that an engine left, as values.
type Read = fn(&[u8], Dtype) -> Values;

struct Placed {
    name: String,
    /// The data, and the sentinel behind it.
    whole: Slot<u8>,
    data: Vec<u8>,
    /// None: an input, which stays.
    read: Option<Read>,
}

/// What is different from what the case says.
pub enum Change {
    /// The input of this name has these values.
    Moved(String, Vec<f32>),
    /// The slot of this name has one element less or more.
    Resized(String, isize),
}

pub struct Rig {
    pub dev: Box<dyn Engine>,
    /// Activations are rounded to this before the engine stores them.
    rounds: Dtype,
    layout: Layout,
    placed: Vec<Placed>,
    /// What names of slots end in.
    pub suffix: String,
    pub change: Option<Change>,
}

impl Rig {
    /// On the CPU engine, which reads activations rounded to `dtype`.
    pub fn cpu(dtype: Dtype) -> Self {
        Rig { rounds: dtype, ..Rig::with(Box::new(Cpu::new())) }
    }

    /// On the GPU, or the software GPU. None where this machine can have neither.
    pub fn cuda(dtype: Dtype) -> Option<Self> {
        let open = || Cuda::new(Options::default(), dtype).unwrap();
        softgpu::load().then(|| Rig::with(Box::new(open())))
    }

    /// On an engine with options of its own.
    pub fn with(dev: Box<dyn Engine>) -> Self {
        let rounds = dev.dtype();
        let (layout, suffix) = (Layout::new(rounds), String::new());
        let mut rig = Rig { dev, rounds, layout, placed: vec![], suffix, change: None };
        // What is written before the first slot is seen, too.
        rig.input("the sentinel before all", &[SENTINEL; GUARD]);
        rig
    }

    /// Elements that the slot is to have.
    fn len(&self, name: &str, len: usize) -> usize {
        match &self.change {
            Some(Change::Resized(other, by)) if other == name => len.strict_add_signed(*by),
            _ => len,
        }
    }

    /// The first `len` elements of `whole`, which are to hold `data`.
    fn place<T>(
        &mut self,
        name: &str,
        (whole, len): (Slot<T>, usize),
        mut data: Vec<u8>,
        read: Option<Read>,
    ) -> Slot<T> {
        data.resize(whole.part(0, len).bytes(), 0xFF);
        let name = format!("{name}{}", self.suffix);
        self.placed.push(Placed { name, whole: whole.erased(), data, read });
        whole.part(0, len)
    }

    fn plain<T: Element>(&mut self, name: &str, data: &[T], read: Option<Read>) -> Slot<T> {
        if data.is_empty() {
            return Slot::empty();
        }
        let data: Vec<u8> = match &self.change {
            Some(Change::Moved(other, values)) if other == name => {
                assert_eq!(size_of_val(data), size_of_val(&values[..]), "{name}");
                bytemuck::cast_slice(values).to_vec()
            }
            _ => bytemuck::cast_slice(data).to_vec(),
        };
        let width = size_of::<T>();
        let len = self.len(name, data.len() / width);
        let whole = self.layout.take(Pool::Acts, name, len + GUARD.div_ceil(width));
        self.place(name, (whole, len), data, read)
    }

    fn stored(&mut self, name: &str, data: &[f32], read: Option<Read>) -> Slot<Act> {
        if data.is_empty() {
            return Slot::empty();
        }
        let data = match &self.change {
            Some(Change::Moved(other, values)) if other == name => values,
            _ => data,
        };
        let rounded: Vec<f32> = data.iter().map(|&x| self.rounds.round(x)).collect();
        let bytes = self.layout.dtype.encode(&rounded);
        let len = self.len(name, data.len());
        let guard = GUARD / self.layout.dtype.bytes();
        let whole = self.layout.acts(Pool::Acts, name, len + guard);
        self.place(name, (whole, len), bytes, read)
    }

    /// A slot that holds `data`, and must afterwards.
    pub fn input<T: Element>(&mut self, name: &str, data: &[T]) -> Slot<T> {
        self.plain(name, data, None)
    }

    /// Activations, rounded, which must stay.
    pub fn acts(&mut self, name: &str, data: &[f32]) -> Slot<Act> {
        self.stored(name, data, None)
    }

    /// A slot that holds `data`, and then a result.
    pub fn inout<T: Number>(&mut self, name: &str, data: &[T]) -> Slot<T> {
        self.plain(name, data, Some(|bytes, _| T::values(bytemuck::pod_collect_to_vec(bytes))))
    }

    pub fn act_inout(&mut self, name: &str, data: &[f32]) -> Slot<Act> {
        self.stored(name, data, Some(|bytes, dtype| Values::Floats(dtype.decode(bytes))))
    }

    /// A slot of NaN, or of the largest integer, and then a result.
    pub fn output<T: Number>(&mut self, name: &str, len: usize) -> Slot<T> {
        self.inout(name, &vec![bytemuck::pod_read_unaligned(&vec![0xFF; size_of::<T>()]); len])
    }

    pub fn act_output(&mut self, name: &str, len: usize) -> Slot<Act> {
        self.act_inout(name, &vec![f32::NAN; len])
    }

    /// A slot that an op adds to, beginning with [`Number::start`].
    pub fn adds<T: Number>(&mut self, name: &str, len: usize) -> Slot<T> {
        self.inout(name, &T::start(len))
    }

    pub fn act_adds(&mut self, name: &str, len: usize) -> Slot<Act> {
        self.act_inout(name, &f32::start(len))
    }

    /// The names of what was placed.
    pub fn slots(&self) -> Vec<String> {
        self.placed[1..].iter().map(|placed| placed.name.clone()).collect()
    }

    /// The f32 that an input holds, or activations in f32.
    pub fn floats(&self, name: &str) -> Vec<f32> {
        let placed = self.placed.iter().find(|placed| placed.name == name);
        bytemuck::pod_collect_to_vec(&placed.unwrap_or_else(|| panic!("no slot {name}")).data)
    }

    /// Allocates and fills. Plans must have been made before.
    pub fn ready(&mut self) {
        self.dev.reserve(&self.layout).unwrap();
        for Placed { whole, data, .. } in &self.placed {
            let mut bytes = data.clone();
            bytes.resize(whole.len, SENTINEL);
            self.dev.write(*whole, &bytes).unwrap();
        }
        // Under AddressSanitizer a kernel that touches a sentinel dies there and then.
        let dev: &dyn Any = &*self.dev;
        if let Some(dev) = dev.downcast_ref::<Cuda>() {
            for Placed { whole, data, .. } in &self.placed {
                let behind = data.len() as u64;
                softgpu::forbid(dev.address(*whole) + behind, whole.len - data.len());
            }
        }
    }

    /// What is in the outputs; checks that no sentinel and no input was touched.
    #[track_caller]
    pub fn results(&mut self, case: &str) -> Results {
        let mut results = Results::new(case);
        for Placed { name, whole, data, read } in &self.placed {
            let bytes = self.dev.read(*whole).unwrap();
            let (left, sentinel) = bytes.split_at(data.len());
            assert!(sentinel.iter().all(|&b| b == SENTINEL), "{case}: written behind {name}");
            match read {
                Some(read) => results.put(name, read(left, self.layout.dtype)),
                None => assert!(left == data, "{case}: {name} is read only, and changed"),
            }
        }
        results
    }
}
