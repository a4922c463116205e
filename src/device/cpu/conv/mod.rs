//! Convolution on the CPU: Winograd where it applies, products with unfolded patches elsewhere.
//!
//! * 3×3, stride 1, padding 1, channels in multiples of 16 (four fifths of ResNet-18's work):
//!   Winograd F(2×2, 3×3), 2.25 times fewer multiplications in all three directions ([`winograd`]).
//! * everything else (stem, stride 2, 1×1): patches unfolded piece by piece into scratch, then one
//!   product ([`unfold`]).

mod transform;
mod unfold;
mod winograd;

use crate::base::Result;
use crate::device::Slot;
use crate::device::cpu::Cpu;
use crate::device::cpu::vector::at_least;
use crate::device::cpu::wide::wide;
use crate::device::ops::conv::Door;
use crate::device::ops::{Conv, ConvSpec, Epilogue, Uses};

#[derive(Clone, Copy, Debug)]
enum Way {
    Winograd(winograd::Winograd),
    Unfold(unfold::Unfold),
}

/// The same algorithm serves every use.
#[derive(Clone, Copy, Debug)]
pub struct ConvPlan {
    door: Door,
    way: Way,
}

/// [`Epilogue`] with its slots resolved to the rows of one piece.
#[derive(Clone, Copy)]
pub struct Finish<'a> {
    bias: Option<&'a [f32]>,
    residual: Option<&'a [f32]>,
    relu: bool,
}

impl<'a> Finish<'a> {
    const NONE: Self = Finish { bias: None, residual: None, relu: false };

    /// The same for the piece of y that begins at element `start`.
    fn at(self, start: usize) -> Self {
        Finish { residual: self.residual.map(|r| &r[start..]), ..self }
    }

    /// y (rows, k) = relu?(y + bias + residual).
    #[inline(always)]
    fn apply(self, y: &mut [f32], k: usize) {
        if let Some(bias) = self.bias {
            y.chunks_exact_mut(k)
                .for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
        }
        if let Some(residual) = self.residual {
            y.iter_mut().zip(residual).for_each(|(y, r)| *y += r);
        }
        if self.relu {
            y.iter_mut().for_each(|y| *y = at_least(*y, 0.0));
        }
    }
}

impl Conv for Cpu {
    type ConvPlan = ConvPlan;

    fn plan_conv(&mut self, spec: ConvSpec, uses: Uses) -> Result<ConvPlan> {
        spec.check()?;
        let way = if winograd::Winograd::applies(spec) {
            Way::Winograd(winograd::Winograd { spec })
        } else {
            Way::Unfold(unfold::Unfold { spec })
        };
        self.ask_scratch(match &way {
            Way::Winograd(p) => p.scratch_len(),
            Way::Unfold(p) => p.scratch_len(),
        });
        Ok(ConvPlan { door: Door { spec, uses }, way })
    }

    fn conv_forward(
        &mut self,
        plan: &ConvPlan,
        y: Slot<f32>,
        x: Slot<f32>,
        w: Slot<f32>,
        epilogue: Epilogue<f32>,
    ) -> Result<()> {
        plan.door.forward(y, x, w, epilogue)?;
        let (simd, scratch) = (self.simd, self.whole_scratch());
        let (y, x, w, bias, residual, scratch) =
            self.get((y, x, w, epilogue.bias, epilogue.residual, scratch));
        let finish =
            Finish { bias: bias.as_deref(), residual: residual.as_deref(), relu: epilogue.relu };
        match plan.way {
            Way::Winograd(p) => p.forward(simd, y, x, w, finish, scratch),
            Way::Unfold(p) => p.forward(simd, y, x, w, finish, scratch),
        }
        Ok(())
    }

    fn conv_backward_data(
        &mut self,
        plan: &ConvPlan,
        dx: Slot<f32>,
        dy: Slot<f32>,
        w: Slot<f32>,
        accumulate: bool,
    ) -> Result<()> {
        plan.door.backward_data(dx, dy, w, accumulate)?;
        let (simd, scratch) = (self.simd, self.whole_scratch());
        let (dx, dy, w, scratch) = self.get((dx, dy, w, scratch));
        match plan.way {
            Way::Winograd(p) => p.backward_data(simd, dx, dy, w, accumulate, scratch),
            Way::Unfold(p) => p.backward_data(simd, dx, dy, w, accumulate, scratch),
        }
        Ok(())
    }

    fn conv_backward_weight(
        &mut self,
        plan: &ConvPlan,
        dw: Slot<f32>,
        db: Option<Slot<f32>>,
        x: Slot<f32>,
        dy: Slot<f32>,
    ) -> Result<()> {
        plan.door.backward_weight(dw, db, x, dy)?;
        let (simd, scratch) = (self.simd, self.whole_scratch());
        let (dw, db, x, dy, scratch) = self.get((dw, db, x, dy, scratch));
        match plan.way {
            Way::Winograd(p) => p.backward_weight(simd, dw, x, dy, scratch),
            Way::Unfold(p) => p.backward_weight(simd, dw, x, dy, scratch),
        }
        if let Some(db) = db {
            bias_gradient(simd, db, dy);
        }
        Ok(())
    }
}

/// db (k) += Σ of the rows of dy. Sequential: only the four 1×1 laterals have a bias, and the sweep
/// runs at memory speed.
fn bias_gradient(simd: pulp::Arch, db: &mut [f32], dy: &[f32]) {
    wide(
        simd,
        #[inline(always)]
        || {
            // Rows are summed in blocks, so that the error grows with the number of blocks and of
            // rows in one, not with their product.
            let mut block = vec![0.0f32; db.len()];
            for rows in dy.chunks(db.len() * 256) {
                block.fill(0.0);
                for row in rows.chunks_exact(db.len()) {
                    block.iter_mut().zip(row).for_each(|(b, d)| *b += d);
                }
                db.iter_mut().zip(&block).for_each(|(d, b)| *d += b);
            }
        },
    );
}
