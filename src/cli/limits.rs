//! Checks of flags that several commands have.

use crate::base::{Error, Result};

/// Fails if `--limit` leaves no image.
pub fn check_limit(limit: Option<usize>) -> Result<()> {
    if limit == Some(0) {
        return Err(Error::input("--limit 0", "use at least 1"));
    }
    Ok(())
}

/// Fails if `--size` is not a side that the network can halve five times: a multiple of 32.
pub fn check_size(size: usize) -> Result<()> {
    if size == 0 || !size.is_multiple_of(32) {
        return Err(Error::input(
            format!("--size {size}"),
            "use a multiple of 32, such as 128 or 320",
        ));
    }
    Ok(())
}
