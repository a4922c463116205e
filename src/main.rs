use std::process::ExitCode;

fn main() -> ExitCode {
    picie::cli::main()
}
