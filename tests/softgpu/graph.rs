//! cuDNN's graph API as the tests of its stand-in use it: a small convolution, its engines, plans
//! and runs. Numbers are those of cudnn_graph.h; descriptors are never destroyed, unless a test
//! does it.

use std::ffi::{CStr, CString, c_char, c_void};

use libloading::os::unix::Library;

use super::gpu::Gpu;
use crate::util::signed;

/// cudnnStatus_t, 0 for success.
pub type Status = u32;

pub mod status {
    pub const VERSION: u32 = 1002;
    pub const LOADING: u32 = 1008;
    pub const BAD_PARAM: u32 = 2000;
    pub const MISALIGNED: u32 = 2003;
    pub const TOO_SMALL: u32 = 2006;
    pub const UNSUPPORTED: u32 = 3000;
    pub const INTERNAL: u32 = 4000;
    pub const COMPILATION: u32 = 4001;
    pub const ALLOCATION: u32 = 4004;
    pub const EXECUTION: u32 = 5001;
}

pub type Raw = *mut c_void;

/// Calls the function `$name` of the stand-in, which is loaded.
macro_rules! call {
    ($name:literal, ($($type:ty),*) $(-> $out:ty)?, $($arg:expr),*) => {{
        type Function = unsafe extern "C" fn($($type),*) $(-> $out)?;
        // SAFETY: the stand-in has a function of this name and signature; it checks what it is
        // handed.
        unsafe { Library::this().get::<Function>(concat!($name, "\0").as_bytes()).unwrap()($($arg),*) }
    }};
}

pub const F32: u32 = 0;
pub const BF16: u32 = 9;
const ENGINE: u32 = 2;
const CONFIG: u32 = 3;
const HEURISTICS: u32 = 4;
pub const PLAN: u32 = 5;
const KNOB: u32 = 7;
const GRAPH: u32 = 15;
const PACK: u32 = 16;
pub const TENSOR: u32 = 17;
pub const MODE_B: u32 = 1;
pub const FALLBACK: u32 = 2;
pub const MODE_A: u32 = 3;
pub const FORWARD: u32 = 10;
pub const WEIGHT: u32 = 11;
pub const DATA: u32 = 12;

/// The values of an attribute.
pub enum Set<'a> {
    Handle(Raw),
    Enum(u32, u32),
    Flag(bool),
    Ints(&'a [i64]),
    Float(f32),
    Pointers(&'a [u64]),
    Parts(&'a [Raw]),
    Text(&'a [u8]),
}

/// A descriptor with these attributes, finalized.
pub fn make(kind: u32, attributes: &[(u32, Set)]) -> Result<Raw, Status> {
    let descriptor = create(kind);
    for (name, values) in attributes {
        let (ty, count, at): (u32, usize, *const c_void) = match values {
            Set::Handle(handle) => (0, 1, std::ptr::from_ref(handle).cast()),
            Set::Enum(ty, value) => (*ty, 1, std::ptr::from_ref(value).cast()),
            Set::Flag(flag) => (2, 1, std::ptr::from_ref(flag).cast()),
            Set::Ints(ints) => (3, ints.len(), ints.as_ptr().cast()),
            Set::Float(float) => (4, 1, std::ptr::from_ref(float).cast()),
            Set::Pointers(pointers) => (6, pointers.len(), pointers.as_ptr().cast()),
            Set::Parts(parts) => (15, parts.len(), parts.as_ptr().cast()),
            Set::Text(text) => (24, text.len(), text.as_ptr().cast()),
        };
        let set = call!("cudnnBackendSetAttribute", (Raw, u32, u32, i64, *const c_void) -> Status, descriptor, *name, ty, count as i64, at);
        assert_eq!(set, 0, "attribute {name}: {}", said());
    }
    match call!("cudnnBackendFinalize", (Raw) -> Status, descriptor) {
        0 => Ok(descriptor),
        status => Err(status),
    }
}

fn create(kind: u32) -> Raw {
    let mut raw = std::ptr::null_mut();
    call!("cudnnBackendCreateDescriptor", (u32, *mut Raw) -> Status, kind, &mut raw);
    raw
}

pub fn destroy(descriptor: Raw) {
    call!("cudnnBackendDestroyDescriptor", (Raw) -> Status, descriptor);
}

/// How many values of type `ty` an attribute has; `values` is filled as far as it goes.
pub fn get<T>(from: Raw, name: u32, ty: u32, values: &mut [T]) -> Result<usize, Status> {
    let (room, at, mut count) = (values.len() as i64, values.as_mut_ptr().cast(), 0);
    let status = call!(
        "cudnnBackendGetAttribute", (Raw, u32, u32, i64, *mut i64, *mut c_void) -> Status, from, name, ty, room, &mut count, at
    );
    if status == 0 { Ok(count as usize) } else { Err(status) }
}

fn parts(from: Raw, name: u32, kind: u32) -> Vec<Raw> {
    let mut found: Vec<Raw> = (0..8).map(|_| create(kind)).collect();
    let count = get(from, name, 15, &mut found).unwrap();
    found.truncate(count);
    found
}

/// What the last call that failed on this thread said.
pub fn said() -> String {
    let mut text = [0u8; 2000];
    call!("cudnnGetLastErrorString", (*mut c_char, usize), text.as_mut_ptr().cast(), text.len());
    CStr::from_bytes_until_nul(&text).unwrap().to_string_lossy().into_owned()
}

/// What the graphs that this thread makes from here on have refused, and the version that it sees
/// (0: the stand-in's own).
pub fn refuse(what: &str, version: usize) {
    let what = CString::new(what).unwrap();
    call!("softcudnn_set", (*const c_char, usize), what.as_ptr(), version);
}

/// A convolution of 3 × 3 from 16 to 24 channels of 2 images of 5 × 4 pixels, or a gradient of it.
#[derive(Clone, Copy)]
pub struct Conv {
    pub direction: u32,
    pub data: u32,
    /// The type of weights or their gradient.
    pub weights: u32,
    /// The type of a bias to add.
    pub bias: Option<u32>,
    pub beta: f32,
}

/// Lengths of x, w, y and a bias.
const LEN: [usize; 4] = [2 * 20 * 16, 24 * 9 * 16, 2 * 20 * 24, 24];

impl Conv {
    pub fn new(direction: u32, data: u32) -> Self {
        Conv { direction, data, weights: data, bias: None, beta: 0.0 }
    }

    fn tensor(id: i64, [n, c, h, w]: [i64; 4], data: u32) -> Raw {
        let attributes = [
            (900, Set::Ints(&[16])),
            (901, Set::Enum(1, data)),
            (902, Set::Ints(&[n, c, h, w])),
            (903, Set::Ints(&[h * w * c, 1, w * c, c])),
            (906, Set::Ints(&[id])),
            (907, Set::Flag(id > 9)),
        ];
        make(TENSOR, &attributes).unwrap()
    }

    pub fn graph(self, handle: Raw) -> Raw {
        let [x, w] = [
            Self::tensor(1, [2, 16, 5, 4], self.data),
            Self::tensor(2, [24, 16, 3, 3], self.weights),
        ];
        let y = Self::tensor(3, [2, 24, 5, 4], self.data);
        let mut convolution =
            vec![(100, Set::Enum(1, F32)), (101, Set::Enum(7, 1)), (106, Set::Ints(&[2]))];
        convolution.extend([102, 103, 104, 105].map(|name| (name, Set::Ints(&[1, 1]))));
        let convolution = make(1, &convolution).unwrap();
        let first = match self.direction {
            FORWARD => 700,
            DATA => 706,
            _ => 712,
        };
        let wide = self.bias.map(|_| Self::tensor(10, [2, 24, 5, 4], F32));
        let tensors = [[convolution], [w], [x], [wide.unwrap_or(y)]];
        let mut attributes = vec![(first, Set::Float(1.0)), (first + 1, Set::Float(self.beta))];
        attributes.extend(
            tensors.iter().zip(first + 2..).map(|(tensor, name)| (name, Set::Parts(tensor))),
        );
        let mut operations = vec![make(self.direction, &attributes).unwrap()];
        if let (Some(bias), Some(wide)) = (self.bias, wide) {
            let add = make(0, &[(0, Set::Enum(14, 0)), (1, Set::Enum(1, F32))]).unwrap();
            let bias = Self::tensor(4, [1, 24, 1, 1], bias);
            let tensors = [[add], [wide], [bias], [y]];
            let attributes: Vec<_> = tensors
                .iter()
                .zip(750..)
                .map(|(tensor, name)| (name, Set::Parts(tensor)))
                .collect();
            operations.push(make(13, &attributes).unwrap());
        }
        make(GRAPH, &[(800, Set::Handle(handle)), (801, Set::Parts(&operations))]).unwrap()
    }
}

/// A handle on a stream of the software GPU.
pub struct Cudnn {
    pub gpu: Gpu,
    pub handle: Raw,
}

impl Cudnn {
    /// None where there is no software GPU.
    pub fn new() -> Option<Self> {
        let gpu = Gpu::new()?;
        let mut handle = std::ptr::null_mut();
        call!("cudnnCreate", (*mut Raw) -> Status, &mut handle);
        call!("cudnnSetStream", (Raw, Raw) -> Status, handle, gpu.stream.cast());
        Some(Cudnn { gpu, handle })
    }

    pub fn destroy_handle(&self) {
        call!("cudnnDestroy", (Raw) -> Status, self.handle);
    }

    /// What a heuristic mode lists, as engine configurations.
    pub fn configs(&self, conv: Conv, mode: u32) -> Result<Vec<Raw>, Status> {
        let graph = conv.graph(self.handle);
        let heuristics =
            make(HEURISTICS, &[(200, Set::Enum(8, mode)), (201, Set::Parts(&[graph]))])?;
        Ok(parts(heuristics, 202, CONFIG))
    }

    pub fn build(&self, config: Raw) -> Result<Raw, Status> {
        make(PLAN, &[(400, Set::Handle(self.handle)), (401, Set::Parts(&[config]))])
    }

    /// The plan of engine `index` with the knob `knob`, from whichever list has it.
    pub fn plan(&self, conv: Conv, index: i64, knob: i64) -> Raw {
        let all = [MODE_A, MODE_B, FALLBACK]
            .into_iter()
            .flat_map(|mode| self.configs(conv, mode).unwrap());
        let config = all
            .into_iter()
            .find(|&config| tag(config) == [index, knob])
            .expect("an engine of this tag");
        self.build(config).unwrap()
    }

    pub fn plan_from(&self, text: &[u8]) -> Result<Raw, Status> {
        make(PLAN, &[(400, Set::Handle(self.handle)), (405, Set::Text(text))])
    }

    /// Runs a plan on x, w, y and a bias at these addresses, with 4 KiB of workspace.
    pub fn execute(&self, plan: Raw, at: [u64; 4], workspace: u64) -> Status {
        let pack = [
            (1000, Set::Ints(&[1, 2, 3, 4])),
            (1001, Set::Pointers(&at)),
            (1003, Set::Pointers(&[workspace])),
        ];
        let pack = make(PACK, &pack).unwrap();
        call!("cudnnBackendExecute", (Raw, Raw, Raw) -> Status, self.handle, plan, pack)
    }
}

/// Operands in f32, filled, somewhat longer than they must be; and a workspace.
pub struct Memory {
    pub at: [u64; 4],
    pub workspace: u64,
}

impl Memory {
    pub fn new(dnn: &mut Cudnn) -> Self {
        let at = [0, 1, 2, 3].map(|i| dnn.gpu.input(&signed(i as u64, LEN[i] + 64)));
        Memory { at, workspace: dnn.gpu.empty::<u8>(4096) }
    }

    pub fn run(&self, dnn: &Cudnn, plan: Raw) -> Status {
        dnn.execute(plan, self.at, self.workspace)
    }

    /// What `plan` leaves where a gradient of the weights is.
    pub fn gradient(&self, dnn: &Cudnn, plan: Raw) -> Vec<f32> {
        assert_eq!(self.run(dnn, plan), 0, "{}", said());
        dnn.gpu.read(self.at[1], LEN[1])
    }
}

/// An engine's number and knob.
pub fn tag(config: Raw) -> [i64; 2] {
    let (mut index, mut knob) = ([0i64], [0i64]);
    get(engine(config), 1301, 3, &mut index).unwrap();
    get(parts(config, 302, KNOB)[0], 601, 3, &mut knob).unwrap();
    [index[0], knob[0]]
}

/// The numerical (1303, type 11) or behaviour notes (1305, type 19) of a configuration's engine.
pub fn notes(config: Raw, name: u32, ty: u32) -> Vec<u32> {
    let mut notes = [0u32; 8];
    let count = get(engine(config), name, ty, &mut notes).unwrap();
    notes[..count].to_vec()
}

fn engine(config: Raw) -> Raw {
    parts(config, 300, ENGINE)[0]
}

/// A plan as a text.
pub fn text_of(plan: Raw) -> Vec<u8> {
    let len = get::<u8>(plan, 405, 24, &mut []).unwrap();
    let mut text = vec![0u8; len];
    assert_eq!(get(plan, 405, 24, &mut text), Ok(len));
    text
}
