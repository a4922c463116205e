//! The state of a GPU, through NVIDIA's management library (`libnvidia-ml`), which comes with the
//! driver. Without it, or without a function of it, what it would tell is missing.

use std::ffi::{CString, c_char, c_int, c_uint, c_ulonglong, c_void};

use libloading::Library;

use crate::device::gauge::{Gauge, State};

/// A GPU as the library knows it.
type Device = *mut c_void;
/// A function that writes one number about a GPU, and answers 0 if it could.
type Ask<T> = unsafe extern "C" fn(Device, *mut T) -> c_int;
/// The same, of one of several clocks or sensors.
type AskOne = unsafe extern "C" fn(Device, c_uint, *mut c_uint) -> c_int;

/// Numbers of nvml.h.
const CLOCK_SM: c_uint = 1;
const CLOCK_MEMORY: c_uint = 2;
const SENSOR_GPU: c_uint = 0;

/// The bits of what holds clocks down (nvmlClocksEventReasons). An idle GPU (1) and clocks that
/// somebody set (2, 0x100) hold nothing down.
const REASONS: [(c_ulonglong, &str); 6] = [
    (0x4, "power cap"),
    (0x8, "hardware slowdown"),
    (0x10, "sync boost"),
    (0x20, "temperature, by software"),
    (0x40, "temperature, by hardware"),
    (0x80, "power brake"),
];

/// The gauge of one GPU.
pub(super) struct Nvml {
    library: Library,
    device: Device,
}

// SAFETY: the library's functions may be called from any thread, and a device belongs to none.
unsafe impl Send for Nvml {}

impl Nvml {
    /// The GPU with this UUID: 32 hexadecimal digits. `None` without the library, or if it does not
    /// know the GPU.
    pub fn open(uuid: &str) -> Option<Self> {
        let cuts = [0, 8, 12, 16, 20, 32].windows(2).map(|cut| uuid.get(cut[0]..cut[1]));
        let parts: Vec<&str> = cuts.collect::<Option<_>>()?;
        let name = CString::new(format!("GPU-{}", parts.join("-"))).ok()?;
        let mut device = std::ptr::null_mut();
        // SAFETY: the library does nothing when loaded; these are the signatures of nvml.h, and the
        // name is terminated and outlives the call.
        unsafe {
            let library = Library::new("libnvidia-ml.so.1").ok()?;
            let init = library.get::<unsafe extern "C" fn() -> c_int>(b"nvmlInit_v2\0").ok()?;
            if init() != 0 {
                return None;
            }
            // From here on the library is closed by `drop`.
            let mut nvml = Nvml { library, device };
            type Find = unsafe extern "C" fn(*const c_char, *mut Device) -> c_int;
            let find = nvml.library.get::<Find>(b"nvmlDeviceGetHandleByUUID\0").ok()?;
            let found = find(name.as_ptr(), &mut device) == 0;
            nvml.device = device;
            found.then_some(nvml)
        }
    }

    /// What the function `name` says of this GPU; `None` where it is missing or fails.
    fn ask<T: Default>(&self, name: &[u8]) -> Option<T> {
        let mut value = T::default();
        // SAFETY: each name that is asked for has this signature in nvml.h; the device was found
        // by this library.
        let code = unsafe { self.library.get::<Ask<T>>(name).ok()?(self.device, &mut value) };
        (code == 0).then_some(value)
    }

    /// The same, of one of several clocks or sensors.
    fn ask_one(&self, name: &[u8], which: c_uint) -> Option<c_uint> {
        let mut value = 0;
        // SAFETY: as above.
        let code =
            unsafe { self.library.get::<AskOne>(name).ok()?(self.device, which, &mut value) };
        (code == 0).then_some(value)
    }
}

impl Gauge for Nvml {
    fn read(&mut self) -> State {
        let watts = |milliwatts: c_uint| f64::from(milliwatts) / 1000.0;
        // Drivers before 535 have only the older name.
        let reasons = self
            .ask(b"nvmlDeviceGetCurrentClocksEventReasons\0")
            .or_else(|| self.ask(b"nvmlDeviceGetCurrentClocksThrottleReasons\0"));
        let named = |bits: c_ulonglong| {
            let held = REASONS.iter().filter(|(bit, _)| bits & bit != 0);
            held.map(|(_, name)| name.to_string()).collect()
        };
        State {
            sm_mhz: self.ask_one(b"nvmlDeviceGetClockInfo\0", CLOCK_SM),
            memory_mhz: self.ask_one(b"nvmlDeviceGetClockInfo\0", CLOCK_MEMORY),
            watts: self.ask(b"nvmlDeviceGetPowerUsage\0").map(watts),
            limit_watts: self.ask(b"nvmlDeviceGetEnforcedPowerLimit\0").map(watts),
            celsius: self.ask_one(b"nvmlDeviceGetTemperature\0", SENSOR_GPU),
            throttled: reasons.map(named),
            others_percent: None,
        }
    }
}

impl Drop for Nvml {
    fn drop(&mut self) {
        // SAFETY: balances the call of nvmlInit_v2 in `open`.
        unsafe {
            if let Ok(end) = self.library.get::<unsafe extern "C" fn() -> c_int>(b"nvmlShutdown\0")
            {
                end();
            }
        }
    }
}
