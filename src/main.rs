use std::process::ExitCode;

use picie::base::{Error, tell};

fn main() -> ExitCode {
    match picie::cli::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tell(format_args!("picie: {e:#}"));
            // 130 is what a shell reports of a process that Ctrl-C ended.
            match e.downcast_ref() {
                Some(Error::Interrupted { .. }) => ExitCode::from(130),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
