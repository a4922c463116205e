//! What the driver says, for users.

use cudarc::driver::{result, sys};

use crate::base::Error;
use crate::device::cuda::images::MISSING_KERNELS;

/// What a failed driver call means to a user: `doing` says where.
pub(super) fn driver_error(doing: &str, e: result::DriverError) -> Error {
    use sys::CUresult::*;
    let name = format!("{:?}", e.0);
    let (what, remedy) = match e.0 {
        CUDA_ERROR_OUT_OF_MEMORY => (
            "the GPU is out of memory".into(),
            "lower --batch or --batch-cluster, or stop what else uses the GPU",
        ),
        CUDA_ERROR_NO_BINARY_FOR_GPU | CUDA_ERROR_INVALID_IMAGE | CUDA_ERROR_INVALID_PTX => {
            match MISSING_KERNELS {
                Some(why) => (format!("no kernels in this binary: {why}"), NO_KERNELS),
                None => (
                    "the kernels in this binary are not for this GPU".into(),
                    "build again with its architecture in $PICIE_CUDA_ARCHS (80, 86, 89, 90a, 100, 120)",
                ),
            }
        }
        CUDA_ERROR_UNSUPPORTED_PTX_VERSION => (
            "the driver is older than the kernels".into(),
            "update the NVIDIA driver to 580 or later",
        ),
        _ => (
            format!("the GPU reports {name}"),
            "run again with --no-graph and CUDA_LAUNCH_BLOCKING=1 to see which op it is; the last checkpoint is whole",
        ),
    };
    Error::Device { op: doing.into(), what, remedy: remedy.into() }
}

/// How to get nvcc.
pub(super) const NO_KERNELS: &str = "install nvcc (CUDA 13 toolkit, or pip install nvidia-cuda-nvcc nvidia-cuda-crt \
     nvidia-nvvm nvidia-cuda-runtime nvidia-cuda-cccl in the active environment), touch build.rs and build again";
