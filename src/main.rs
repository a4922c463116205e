use std::process::ExitCode;

use picie::base::{Error, tell};

fn main() -> ExitCode {
    match picie::cli::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tell(format_args!("picie: {e:#}"));
            // Shells report 130 for a process that was ended by Ctrl-C.
            match e.downcast_ref() {
                Some(Error::Interrupted { .. }) => ExitCode::from(130),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
