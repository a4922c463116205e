//! What this program is: its version, the commit it was built from, and the kernels in it.

/// Version and commit, on one line.
pub fn short() -> String {
    format!("{} ({})", env!("CARGO_PKG_VERSION"), env!("PICIE_COMMIT"))
}

/// The architectures that the kernels in this binary were compiled for, and the compiler; or why
/// there are none.
pub fn kernels() -> String {
    match (env!("PICIE_KERNEL_ARCHS"), env!("PICIE_KERNEL_NVCC")) {
        ("", _) => "none, built without a working nvcc".into(),
        (archs, nvcc) => format!("sm_{}, by nvcc {nvcc}", archs.replace(',', ", sm_")),
    }
}

/// Everything, a line each.
pub fn long() -> String {
    format!(
        "{}\ncommit: {}\nCUDA kernels: {}\nbuilt for {}-{}",
        env!("CARGO_PKG_VERSION"),
        env!("PICIE_COMMIT"),
        kernels(),
        std::env::consts::ARCH,
        std::env::consts::OS
    )
}
