//! Where the files lie that tests need: where this binary was built, or below `$PICIE_ROOT`, which
//! a packed one is told (`benches/kit/`).

use std::path::PathBuf;

/// The file or folder `packed` of a packed binary; `built`, which the build knows, of any other.
fn place(packed: &str, built: &str) -> PathBuf {
    std::env::var_os("PICIE_ROOT")
        .map_or_else(|| built.into(), |root| PathBuf::from(root).join(packed))
}

/// The repository, of which a packed binary has `tests/golden` alone.
pub fn root() -> PathBuf {
    place("", env!("CARGO_MANIFEST_DIR"))
}

/// The program `picie`.
pub fn binary() -> PathBuf {
    place("picie", env!("CARGO_BIN_EXE_picie"))
}

/// A folder for what tests write.
pub fn tmp() -> PathBuf {
    place("tmp", env!("CARGO_TARGET_TMPDIR"))
}
