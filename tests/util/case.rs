//! One description of a call, and what is checked of it: results against a reference, CUDA against
//! the CPU in every type, gradients against finite differences, bits on any number of threads,
//! slots of other sizes.

use picie::base::{Error, Result};
use picie::device::{Dtype, Engine};

use crate::util::rig::{Change, On, Rig};
use crate::util::{Results, below, dot};

type Call = Box<dyn Fn(&mut dyn Engine) -> Result<()>>;

/// A call, or several: what goes in and comes out by name, the plan, and the doors.
pub struct OpCase<'a> {
    name: String,
    build: Box<dyn Fn(&mut Rig) -> Call + Send + Sync + 'a>,
}

/// Central differences: at `picks` random places of an input, `step` up and down, within `tol` of
/// the largest gradient.
///
/// The loss must be so precise that `step²·f''' + eps·f/step` stays below `tol` times that.
#[derive(Clone, Copy)]
pub struct Steps {
    pub picks: usize,
    pub step: f32,
    pub tol: f32,
}

/// Half of the last place of the largest number, as activations are stored: a rounding, relative.
pub fn rounding(dtype: Dtype) -> f32 {
    match dtype {
        Dtype::F32 => 0.0,
        Dtype::Bf16 => 1.0 / 256.0,
        Dtype::F16 => 1.0 / 2048.0,
    }
}

impl<'a> OpCase<'a> {
    /// `build` makes the plan, places slots under the names that the door has for them (what
    /// follows a # tells equals apart), and returns the call.
    pub fn new<C: Fn(&mut dyn Engine) -> Result<()> + 'static>(
        name: String,
        build: impl Fn(&mut Rig) -> C + Send + Sync + 'a,
    ) -> Self {
        OpCase { name, build: Box::new(move |rig| Box::new(build(rig))) }
    }

    /// One after the other, on the same engine: `cases[i]`'s slots have names that end in #i.
    pub fn sequence(name: String, cases: Vec<OpCase<'a>>) -> Self {
        let name = cases.iter().fold(name, |name, case| format!("{name}; {}", case.name));
        OpCase::new(name, move |rig| {
            let mut build = |(i, case): (usize, &OpCase)| {
                rig.suffix = format!("#{i}");
                (case.build)(rig)
            };
            let calls: Vec<Call> = cases.iter().enumerate().map(&mut build).collect();
            move |dev: &mut dyn Engine| calls.iter().try_for_each(|call| call(dev))
        })
    }

    /// The rig, filled, and the call.
    fn ready(&self, mut rig: Rig) -> (Rig, Call) {
        let call = (self.build)(&mut rig);
        rig.ready();
        (rig, call)
    }

    /// As [`OpCase::run`], with `ops` in the place of the call, which it is given.
    #[track_caller]
    pub fn run_by(
        &self,
        rig: Rig,
        ops: impl FnOnce(&mut dyn Engine, &dyn Fn(&mut dyn Engine) -> Result<()>) -> Result<()>,
    ) -> Results {
        let (mut rig, call) = self.ready(rig);
        let name = format!("{} in {}", self.name, rig.dev.dtype().name());
        ops(&mut *rig.dev, &call).unwrap_or_else(|e| panic!("{name}: {e}"));
        rig.results(&name)
    }

    /// What it leaves. No sentinel and no input may be touched.
    #[track_caller]
    pub fn run(&self, rig: Rig) -> Results {
        self.run_by(rig, |dev, call| call(dev))
    }

    /// What it leaves on the CPU.
    #[track_caller]
    pub fn cpu(&self) -> Results {
        self.run(Rig::cpu(Dtype::F32))
    }

    /// What it is refused with.
    #[track_caller]
    pub fn refusal(&self, rig: Rig) -> Error {
        let (mut rig, call) = self.ready(rig);
        call(&mut *rig.dev).err().unwrap_or_else(|| panic!("{} is not refused", self.name))
    }

    /// What it leaves on CUDA, and on the CPU, from the same activations, which `dtype` holds. None
    /// where this machine can have no CUDA.
    #[track_caller]
    pub fn both(&self, dtype: Dtype) -> Option<[Results; 2]> {
        let rig = Rig::cuda(dtype)?;
        Some([self.run(rig), self.run(Rig::cpu(dtype))])
    }

    /// Fails unless [`OpCase::both`] are close; returns them.
    #[track_caller]
    pub fn agree(&self, dtype: Dtype, tol: impl Fn(&str) -> f32) -> Option<[Results; 2]> {
        let [got, want] = self.both(dtype)?;
        got.close(&want, tol);
        Some([got, want])
    }

    /// Checks `gradients`, by the inputs of their names, of Σ weights·output in f32.
    #[track_caller]
    pub fn slopes(
        &self,
        on: On,
        (output, weights): (&str, &[f32]),
        gradients: &[(&str, Vec<f32>)],
        Steps { picks, step, tol }: Steps,
    ) {
        for (name, gradient) in gradients {
            let named = format!("{} on {on:?}: {name}", self.name);
            let x = self.ready(on.rig()).0.floats(name);
            assert_eq!(x.len(), gradient.len(), "{named}");
            let scale = gradient.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            assert!(scale > 0.0, "{named}: a gradient of zeros tests nothing");
            for i in below(x.len() as u64, picks, x.len()) {
                let at = |value| {
                    let (mut rig, mut moved) = (on.rig(), x.clone());
                    moved[i] = value;
                    rig.change = Some(Change::Moved(name.to_string(), moved));
                    dot(&self.run(rig)[output], weights)
                };
                let (hi, lo) = (x[i] + step, x[i] - step);
                let (slope, want) = (((at(hi) - at(lo)) / f64::from(hi - lo)) as f32, gradient[i]);
                let err = (slope - want).abs() / scale;
                let said = format!("{named}[{i}]: slope {slope}, gradient {want}");
                assert!(err <= tol, "{said}, error {err:e} is not within {tol:e}");
            }
        }
    }

    /// Fails unless the CPU leaves the same bits on any number of threads.
    #[track_caller]
    pub fn same_bits_on_any_threads(&self) {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            // Plans are made inside as well.
            pool.install(|| self.cpu())
        };
        let one = on(1);
        for threads in [2, 3, 5, 7] {
            let more = on(threads);
            assert!(one.bits() == more.bits(), "{}: bits depend on threads", self.name);
        }
    }

    /// Fails unless door `op` refuses every slot, by its name, that has an element less or more.
    /// `sizes`: slots that others are measured by, each with that which is then refused.
    #[track_caller]
    pub fn refuses_other_sizes(&self, op: &str, sizes: &[(&str, &str)]) {
        let slots = self.ready(Rig::cpu(Dtype::F32)).0.slots();
        assert!(!slots.is_empty());
        for (slot, by) in slots.iter().flat_map(|slot| [(slot, -1), (slot, 1)]) {
            let mut rig = Rig::cpu(Dtype::F32);
            rig.change = Some(Change::Resized(slot.clone(), by));
            let (mut rig, call) = self.ready(rig);
            let measured = sizes.iter().find(|(size, _)| size == slot);
            let name = measured.map_or(slot.split('#').next().unwrap(), |(_, refused)| refused);
            let said = call(&mut *rig.dev);
            let fits = |got: usize, want: usize| {
                measured.is_some() || got.checked_signed_diff(want) == Some(by)
            };
            assert!(
                matches!(said, Err(Error::Shape { op: o, what, got, want })
                    if o == op && what == name && fits(got, want)),
                "{op}: {slot} has {by} elements more, {name} must be refused: {said:?}"
            );
        }
    }
}

mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use picie::device::Slot;

    use super::*;
    use crate::util::signed;

    /// y = 2·x, and then what `more` does with the two.
    fn doubled<F>(more: F) -> OpCase<'static>
    where
        F: Fn(&mut dyn Engine, Slot<f32>, Slot<f32>) -> Result<()> + Copy + Send + Sync + 'static,
    {
        OpCase::new("doubled".into(), move |rig| {
            let (x, y) = (rig.input("x", &signed(1, 20)), rig.output("y", 20));
            move |dev| {
                let twice: Vec<f32> = dev.read(x)?.iter().map(|x| 2.0 * x).collect();
                dev.write(y, &twice[..y.len.min(x.len)])?;
                more(dev, x, y)
            }
        })
    }

    fn fails(check: impl FnOnce()) -> bool {
        catch_unwind(AssertUnwindSafe(check)).is_err()
    }

    #[test]
    fn what_a_case_does_wrong_is_seen() {
        let right = doubled(|_, _, _| Ok(()));
        let want = right.cpu();
        assert!(!fails(|| want.close(&right.cpu(), |_| 1e-6)));
        let off = doubled(|dev, _, y| dev.write(y, &[7.0]));
        assert!(fails(|| off.cpu().close(&want, |_| 1e-6)));

        let behind = |len| {
            move |dev: &mut dyn Engine, _, y: Slot<f32>| {
                let slot: Slot<f32> = Slot::new(y.pool, y.offset, y.len + 1);
                dev.write(slot, &vec![1.0; len])
            }
        };
        assert!(!fails(|| drop(doubled(behind(20)).cpu())));
        assert!(fails(|| drop(doubled(behind(21)).cpu())), "one element is written behind y");
        let input = doubled(|dev, x, _| dev.write(x, &[7.0]));
        assert!(fails(|| drop(input.cpu())), "an input changes");

        let steps = Steps { picks: 5, step: 0.5, tol: 1e-3 };
        let slope = |slope: f32| {
            right.slopes(On::Cpu, ("y", &[1.0; 20]), &[("x", vec![slope; 20])], steps);
        };
        assert!(!fails(|| slope(2.0)) && fails(|| slope(2.01)));
        assert!(fails(|| slope(f32::NAN)) && fails(|| slope(0.0)));

        right.same_bits_on_any_threads();
        let threads = doubled(|dev, _, y| dev.write(y, &[rayon::current_num_threads() as f32]));
        assert!(fails(|| threads.same_bits_on_any_threads()));
    }

    #[test]
    fn a_door_that_lets_other_sizes_pass_is_seen() {
        fn want(what: &'static str, got: usize) -> Result<()> {
            let want = 20;
            if got == want { Ok(()) } else { Err(Error::Shape { op: "doubled", what, got, want }) }
        }
        let checked = doubled(|_, x, y| want("x", x.len).and(want("y", y.len)));
        checked.refuses_other_sizes("doubled", &[]);
        let blind = doubled(|_, x, _| want("x", x.len));
        assert!(fails(|| blind.refuses_other_sizes("doubled", &[])));
        let misnamed = doubled(|_, x, y| want("x", x.len).and(want("x", y.len)));
        assert!(fails(|| misnamed.refuses_other_sizes("doubled", &[])));
    }
}
