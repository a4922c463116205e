//! Slots of an op resolved to disjoint mutable slices of the engine's memory.

use std::ops::Range;

use crate::device::cpu::Cpu;
use crate::device::cpu::memory::Line;
use crate::device::{ALIGN, Act, Element, Slot};

impl Cpu {
    /// Mutable slices of several slots at once: `let (y, x) = cpu.get((y, x));`. Panics where two
    /// of them overlap.
    pub(super) fn get<S: Slots>(&mut self, slots: S) -> S::Slices<'_> {
        let mut all = Vec::new();
        slots.list(&mut all);
        let lines = all.iter().map(|slot| {
            let start = self.base[slot.pool as usize] + slot.offset / ALIGN;
            start..start + slot.len.div_ceil(ALIGN)
        });
        let mut inside: Vec<(usize, Range<usize>)> =
            lines.enumerate().filter(|(_, lines)| !lines.is_empty()).collect();
        inside.sort_by_key(|(_, lines)| lines.start);
        let mut found: Vec<&mut [Line]> = all.iter().map(|_| Default::default()).collect();
        let (mut rest, mut at) = (&mut self.lines[..], 0);
        for (i, Range { start, end }) in inside {
            assert!(at <= start, "slots of one op overlap: {all:?}");
            let lines = rest.split_off_mut(..end - at).expect("a slot of the reserved layout");
            found[i] = &mut lines[start - at..];
            at = end;
        }
        slots.slices(&mut found.into_iter())
    }
}

/// What [`Cpu::get`] resolves to slices of memory: a slot, one that may be missing, or several of
/// these in an array, a vector or a tuple.
pub(super) trait Slots {
    type Slices<'a>;

    /// Adds every slot to the list.
    fn list(&self, all: &mut Vec<Slot<u8>>);

    /// Takes the lines of every slot, in the order of the list.
    fn slices<'a>(&self, lines: Lines<'_, 'a>) -> Self::Slices<'a>;
}

/// The lines of listed slots, one slot after the other.
pub(super) type Lines<'i, 'a> = &'i mut std::vec::IntoIter<&'a mut [Line]>;

/// The next slot's elements.
fn next<'a, T: Element, S>(slot: &Slot<S>, lines: Lines<'_, 'a>) -> &'a mut [T] {
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(lines.next().expect("a slot of the list"));
    bytemuck::cast_slice_mut(&mut bytes[..slot.bytes()])
}

impl<T: Element> Slots for Slot<T> {
    type Slices<'a> = &'a mut [T];

    fn list(&self, all: &mut Vec<Slot<u8>>) {
        all.push(self.erased());
    }

    fn slices<'a>(&self, lines: Lines<'_, 'a>) -> &'a mut [T] {
        next(self, lines)
    }
}

/// Activations of this engine are f32.
impl Slots for Slot<Act> {
    type Slices<'a> = &'a mut [f32];

    fn list(&self, all: &mut Vec<Slot<u8>>) {
        all.push(self.erased());
    }

    fn slices<'a>(&self, lines: Lines<'_, 'a>) -> &'a mut [f32] {
        next(self, lines)
    }
}

impl<S: Slots> Slots for Option<S> {
    type Slices<'a> = Option<S::Slices<'a>>;

    fn list(&self, all: &mut Vec<Slot<u8>>) {
        self.iter().for_each(|slot| slot.list(all));
    }

    fn slices<'a>(&self, lines: Lines<'_, 'a>) -> Self::Slices<'a> {
        self.as_ref().map(|slot| slot.slices(lines))
    }
}

impl<S: Slots, const N: usize> Slots for [S; N] {
    type Slices<'a> = [S::Slices<'a>; N];

    fn list(&self, all: &mut Vec<Slot<u8>>) {
        self.iter().for_each(|slot| slot.list(all));
    }

    fn slices<'a>(&self, lines: Lines<'_, 'a>) -> Self::Slices<'a> {
        self.each_ref().map(|slot| slot.slices(lines))
    }
}

impl<S: Slots> Slots for Vec<S> {
    type Slices<'a> = Vec<S::Slices<'a>>;

    fn list(&self, all: &mut Vec<Slot<u8>>) {
        self.iter().for_each(|slot| slot.list(all));
    }

    fn slices<'a>(&self, lines: Lines<'_, 'a>) -> Self::Slices<'a> {
        self.iter().map(|slot| slot.slices(lines)).collect()
    }
}

macro_rules! tuple {
    ($($slot:ident),+) => {
        impl<$($slot: Slots),+> Slots for ($($slot,)+) {
            type Slices<'a> = ($($slot::Slices<'a>,)+);

            #[allow(non_snake_case)]
            fn list(&self, all: &mut Vec<Slot<u8>>) {
                let ($($slot,)+) = self;
                $($slot.list(all);)+
            }

            #[allow(non_snake_case)]
            fn slices<'a>(&self, lines: Lines<'_, 'a>) -> Self::Slices<'a> {
                let ($($slot,)+) = self;
                ($($slot.slices(lines),)+)
            }
        }
    };
}

tuple!(A);
tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);
tuple!(A, B, C, D, E);
tuple!(A, B, C, D, E, F);
tuple!(A, B, C, D, E, F, G);
tuple!(A, B, C, D, E, F, G, H);
tuple!(A, B, C, D, E, F, G, H, I);
tuple!(A, B, C, D, E, F, G, H, I, J);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Dtype, Engine, Layout, Pool};

    #[test]
    fn slots_of_different_pools_and_types_are_resolved_together() {
        let mut layout = Layout::new(Dtype::F32);
        let a = layout.take::<f32>(Pool::Acts, "a", 5);
        let b = layout.take::<u16>(Pool::State, "b", 7);
        let c = layout.acts(Pool::Acts, "c", 3);
        let mut cpu = Cpu::new();
        cpu.reserve(&layout).unwrap();
        let dev: &mut dyn Engine = &mut cpu;
        dev.write(a, &[1., 2., 3., 4., 5.]).unwrap();
        dev.write(b, &[9; 7]).unwrap();
        dev.write_acts(c, &[6.0; 3]).unwrap();
        let (x, none, [y], z) = cpu.get((a, None::<Slot<f32>>, [b], vec![(Some(c), a.part(0, 0))]));
        assert_eq!((x[4], none.is_none(), y.len()), (5.0, true, 7));
        assert_eq!(z, [(Some(&mut [6.0; 3][..]), &mut [][..])]);
        y[6] = 1;
        let dev: &mut dyn Engine = &mut cpu;
        assert_eq!(dev.read(b).unwrap(), [9, 9, 9, 9, 9, 9, 1]);
        assert_eq!(dev.read(a).unwrap(), [1., 2., 3., 4., 5.]);
    }

    #[test]
    #[should_panic(expected = "overlap")]
    fn an_op_cannot_be_given_the_same_memory_twice() {
        let mut layout = Layout::new(Dtype::F32);
        let a = layout.take::<f32>(Pool::Acts, "a", 5);
        let mut cpu = Cpu::new();
        cpu.reserve(&layout).unwrap();
        cpu.get((a, a));
    }
}
