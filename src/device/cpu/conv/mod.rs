//! Convolution on the CPU: Winograd where it applies, products with unfolded patches elsewhere.
//!
//! * 3×3, stride 1, padding 1, channels in multiples of 16 (four fifths of ResNet-18's work):
//!   Winograd F(2×2, 3×3), 2.25 times fewer multiplications in all three directions ([`winograd`]).
//! * everything else (stem, stride 2, 1×1): patches unfolded piece by piece into scratch, then one
//!   product ([`unfold`]).

mod tiles;
mod transform;
mod unfold;
mod winograd;

use pulp::Arch;

use crate::base::Result;
use crate::device::cpu::Cpu;
use crate::device::cpu::vector::at_least;
use crate::device::cpu::wide::wide;
use crate::device::ops::conv::ConvOps;
use crate::device::ops::{
    ConvBackwardData, ConvBackwardWeight, ConvForward, ConvSpec, ConvUse, Passed,
};
use unfold::Unfold;
use winograd::Winograd;

/// The algorithm for a convolution, the same in all three directions.
enum Way {
    Winograd(Winograd),
    Unfold(Unfold),
}

impl Way {
    fn new(simd: Arch, spec: ConvSpec) -> Self {
        if Winograd::applies(spec) {
            Way::Winograd(Winograd { simd, spec })
        } else {
            Way::Unfold(Unfold { simd, spec })
        }
    }
}

/// What happens to the sums of a piece of the output before they are stored: out = relu?(sums +
/// bias + residual), added to what is there with `accumulate`.
#[derive(Clone, Copy, Default)]
pub struct Finish<'a> {
    /// One number a channel (k).
    bias: Option<&'a [f32]>,
    /// A number for each element of the piece, and more.
    residual: Option<&'a [f32]>,
    relu: bool,
    /// Whether sums are added to what is there; only where there is no other term.
    accumulate: bool,
}

impl Finish<'_> {
    /// The same for the piece of the output that begins at element `start`.
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

impl ConvOps for Cpu {
    fn plan_conv(&mut self, plan: ConvUse) -> Result<usize> {
        self.ask_scratch(match Way::new(self.simd, plan.spec) {
            Way::Winograd(way) => way.scratch_len(),
            Way::Unfold(way) => way.scratch_len(),
        });
        Ok(0)
    }

    fn conv_forward(&mut self, a: Passed<ConvForward>) -> Result<()> {
        let (way, scratch) = (Way::new(self.simd, a.spec().spec), self.whole_scratch());
        let ConvForward { y, x, w, epilogue } = *a;
        let (y, x, w, bias, residual, scratch) =
            self.get((y, x, w, epilogue.bias, epilogue.residual, scratch));
        let (bias, residual) = (bias.as_deref(), residual.as_deref());
        let finish = Finish { bias, residual, relu: epilogue.relu, accumulate: false };
        match way {
            Way::Winograd(way) => way.forward(y, x, w, finish, scratch),
            Way::Unfold(way) => way.forward(y, x, w, finish, scratch),
        }
        Ok(())
    }

    fn conv_backward_data(&mut self, a: Passed<ConvBackwardData>) -> Result<()> {
        let (way, scratch) = (Way::new(self.simd, a.spec().spec), self.whole_scratch());
        let (dx, dy, w, scratch) = self.get((a.dx, a.dy, a.w, scratch));
        match way {
            Way::Winograd(way) => way.backward_data(dx, dy, w, a.accumulate, scratch),
            Way::Unfold(way) => way.backward_data(dx, dy, w, a.accumulate, scratch),
        }
        Ok(())
    }

    fn conv_backward_weight(&mut self, a: Passed<ConvBackwardWeight>) -> Result<()> {
        let (simd, scratch) = (self.simd, self.whole_scratch());
        let way = Way::new(simd, a.spec().spec);
        let (dw, db, x, dy, scratch) = self.get((a.dw, a.db, a.x, a.dy, scratch));
        match way {
            Way::Winograd(way) => way.backward_weight(dw, x, dy, scratch),
            Way::Unfold(way) => way.backward_weight(dw, x, dy, scratch),
        }
        if let Some(db) = db {
            bias_gradient(simd, db, dy);
        }
        Ok(())
    }
}

/// db (k) += Σ of the rows of dy. Sequential: only the four 1×1 laterals have a bias, and the sweep
/// runs at memory speed.
fn bias_gradient(simd: Arch, db: &mut [f32], dy: &[f32]) {
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
