//! IIC's loss on CUDA.

use super::context::Cuda;
use crate::base::{Error, Result};
use crate::device::ops::{Iic, IicSpec};
use crate::device::{Activation, Slot};

impl<A: Activation> Iic for Cuda<A> {
    type IicPlan = IicSpec;

    fn plan_iic(&mut self, spec: IicSpec) -> Result<IicSpec> {
        spec.axes()?;
        Err(Error::input("IIC's loss has no kernels yet", "use --device cpu"))
    }

    fn iic_loss(&mut self, plan: &IicSpec, loss: Slot<f32>, dmaps: Slot<f32>, maps: Slot<f32>, _: f32) -> Result<()> {
        plan.check(loss, dmaps, maps)
    }
}
