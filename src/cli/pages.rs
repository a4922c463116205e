//! The commands `picie completions` and `picie man`, which follow from the command line's own
//! description.

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::base::fs::write_atomic;
use crate::base::{Error, Result};
use crate::cli::args::{Args, CompletionsArgs, ManArgs};
use crate::cli::say;

/// Prints the completions of a shell.
pub fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "picie", &mut script);
    say(String::from_utf8_lossy(&script).trim_end())
}

/// Prints the manual page of picie, or writes a page of each command.
pub fn man(args: &ManArgs) -> Result<()> {
    let Some(dir) = &args.out else {
        return say(String::from_utf8_lossy(&page(Args::command())).trim_end());
    };
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    let mut all = Args::command();
    all.build();
    let mut pages = vec![("picie".to_string(), Args::command())];
    pages.extend(all.get_subcommands().filter(|command| command.get_name() != "help").map(
        |command| {
            let name = format!("picie-{}", command.get_name());
            (name.clone(), command.clone().display_name(name))
        },
    ));
    for (name, command) in &pages {
        let bytes = page(command.clone());
        write_atomic(&dir.join(format!("{name}.1")), |out| out.write_all(&bytes))?;
    }
    say(format_args!("{} pages: {}", pages.len(), dir.display()))
}

/// The page of a command as roff.
fn page(command: Command) -> Vec<u8> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page).expect("memory can be written");
    page
}
