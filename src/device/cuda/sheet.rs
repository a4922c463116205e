//! What GPU this is, and why there may be none.

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice, CUdevice_attribute as Attribute};
use serde::Serialize;

use crate::base::{Error, Result};
use crate::device::cuda::error::{NO_KERNELS, driver_error};
use crate::device::cuda::images::MISSING_KERNELS;

/// CUDA 13.0, which the kernels are compiled with: drivers run what is as old as they are, or
/// older.
const CUDA: i32 = 13000;

/// The device sheet of a report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sheet {
    pub name: String,
    pub uuid: String,
    /// Of CUDA that the driver knows, such as 13000.
    pub driver: i32,
    /// Such as 9.0.
    pub compute_capability: String,
    pub multiprocessors: i32,
    pub memory_mib: usize,
    pub memory_free_mib: usize,
    pub l2_mib: f64,
    pub clock_mhz: f64,
    pub memory_clock_mhz: f64,
    /// What the memory's clock and width promise.
    pub memory_gb_per_s: f64,
    pub ecc: bool,
}

impl Sheet {
    /// The GPU must be the current context's.
    pub(super) fn read(device: CUdevice) -> Result<Self, DriverError> {
        // SAFETY: `device` came from the driver.
        let get = |attribute| unsafe { result::device::get_attribute(device, attribute) };
        let (free, total) = result::mem_get_info()?;
        let mut driver = 0;
        // SAFETY: the pointer is to a live integer.
        unsafe { sys::cuDriverGetVersion(&mut driver) }.result()?;
        let bytes = result::device::get_uuid(device)?.bytes.map(|b| format!("{:02x}", b as u8));
        use Attribute::*;
        Ok(Sheet {
            name: result::device::get_name(device)?,
            uuid: bytes.concat(),
            driver,
            compute_capability: format!(
                "{}.{}",
                get(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                get(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?
            ),
            multiprocessors: get(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            memory_mib: total >> 20,
            memory_free_mib: free >> 20,
            l2_mib: f64::from(get(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?) / f64::from(1 << 20),
            clock_mhz: f64::from(get(CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?) / 1000.0,
            memory_clock_mhz: f64::from(get(CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?) / 1000.0,
            // Two transfers a clock. Drivers that do not tell say 0: then as if it were slow.
            memory_gb_per_s: (2.0
                * f64::from(get(CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?)
                * 1e3
                * f64::from(get(CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?)
                / 8.0
                / 1e9)
                .max(100.0),
            ecc: get(CU_DEVICE_ATTRIBUTE_ECC_ENABLED)? != 0,
        })
    }
}

fn no_gpu(what: impl Into<String>, remedy: &str) -> Error {
    Error::Device { op: "--device cuda".into(), what: what.into(), remedy: remedy.into() }
}

/// Whether a driver is installed at all.
pub fn has_driver() -> bool {
    // SAFETY: only tries to open libraries by name.
    unsafe { sys::is_culib_present() }
}

/// What this binary lacks for `--device cuda`, and how to get it; none where it has all.
pub fn missing_kernels() -> Option<String> {
    MISSING_KERNELS.map(|why| format!("no kernels in this binary: {why}; {NO_KERNELS}"))
}

/// Opens the driver. Errors: there is none, or one that is too old.
fn driver() -> Result<()> {
    if !has_driver() {
        return Err(no_gpu(
            "there is no NVIDIA driver (libcuda)",
            "install one, or use --device cpu",
        ));
    }
    let start = result::init();
    if start == Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) {
        return Err(no_gpu(
            "there is no GPU that CUDA can use",
            "check nvidia-smi, or use --device cpu",
        ));
    }
    if let Err(e) = start {
        return Err(no_gpu(
            format!("the NVIDIA driver reports {:?}", e.0),
            "check nvidia-smi, or use --device cpu",
        ));
    }
    let mut version = 0;
    // SAFETY: the pointer is to a live integer.
    let known = unsafe { sys::cuDriverGetVersion(&mut version) }.result();
    if known.is_err() || version < CUDA {
        let known = format!("{}.{}", version / 1000, version % 1000 / 10);
        return Err(no_gpu(
            format!("the NVIDIA driver knows CUDA {known}, this binary needs 13.0"),
            "update the driver to 580 or later, or use --device cpu",
        ));
    }
    Ok(())
}

/// How many GPUs the driver has. Errors: none.
fn count() -> Result<usize> {
    driver()?;
    match result::device::get_count().unwrap_or(0).max(0) as usize {
        0 => Err(no_gpu(
            "there is no GPU that CUDA can use",
            "check nvidia-smi, or use --device cpu",
        )),
        count => Ok(count),
    }
}

/// Whether an engine could be opened, without opening anything but the driver: starting a GPU takes
/// a while.
pub fn ready() -> Result<()> {
    count()?;
    match MISSING_KERNELS {
        Some(why) => Err(no_gpu(format!("no kernels in this binary: {why}"), NO_KERNELS)),
        None => Ok(()),
    }
}

/// Whether the driver has GPU `ordinal`.
pub fn find(ordinal: usize) -> Result<()> {
    open(ordinal).map(|_| ())
}

/// GPU `ordinal` of the driver.
pub(super) fn open(ordinal: usize) -> Result<CUdevice> {
    let count = count()?;
    if ordinal >= count {
        let have = match count {
            1 => format!("there is no GPU {ordinal}: there is one, number 0"),
            n => format!("there is no GPU {ordinal}: there are {n}, from 0"),
        };
        return Err(no_gpu(have, "choose another --device, such as cuda:0 or cpu"));
    }
    result::device::get(ordinal as i32).map_err(|e| driver_error("--device cuda", e))
}

/// The GPUs of this machine, or why there are none. The thread keeps the context it has: an engine
/// may run in it.
pub fn devices() -> Result<Vec<Sheet>> {
    driver()?;
    let before = result::ctx::get_current().ok().flatten();
    let mut sheets = Vec::new();
    for ordinal in 0..result::device::get_count().unwrap_or(0).max(0) as usize {
        let device = open(ordinal)?;
        let read = || -> Result<Sheet, DriverError> {
            // SAFETY: `device` came from the driver; the context is released below.
            let context = unsafe { result::primary_ctx::retain(device) }?;
            // SAFETY: the context was retained above.
            unsafe { result::ctx::set_current(context) }?;
            let sheet = Sheet::read(device);
            // SAFETY: `before` was current when this began, null is none; the release balances the
            // retain.
            unsafe {
                result::ctx::set_current(before.unwrap_or(std::ptr::null_mut()))?;
                result::primary_ctx::release(device)?;
            }
            sheet
        };
        sheets.push(read().map_err(|e| driver_error("--device cuda", e))?);
    }
    Ok(sheets)
}
