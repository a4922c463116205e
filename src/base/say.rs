//! All that is said to people. Results go to standard output, everything else to standard error.
//! Nothing else in this crate writes to either: `println!` and `eprintln!` panic where nobody reads
//! any more, and the work at hand would be lost with it.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::base::{Error, Result};

/// How much is said on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volume {
    /// Warnings and errors only.
    Quiet,
    /// Progress and notes as well.
    Usual,
    /// Details as well.
    Verbose,
}

/// The volume of this process, as a number.
static VOLUME: AtomicU8 = AtomicU8::new(Volume::Usual as u8);

/// The line at the bottom of the terminal that is drawn over and over; empty if there is none.
static BAR: Mutex<String> = Mutex::new(String::new());

/// Moves to the start of the terminal's line and clears it.
const CLEAR: &str = "\r\x1b[2K";

/// Sets the volume of this process.
pub fn set_volume(volume: Volume) {
    VOLUME.store(volume as u8, Ordering::Relaxed);
}

fn hears(volume: Volume) -> bool {
    VOLUME.load(Ordering::Relaxed) >= volume as u8
}

/// Writes the lines of a result to standard output. A full disk is an error; a reader that has
/// closed the pipe is not. Commands that do work say their results when the work is done, or keep
/// the error until then.
pub fn say(text: impl Display) -> Result<()> {
    let bar = bar();
    let mut out = std::io::stdout().lock();
    let mut write = || {
        if !bar.is_empty() {
            over(CLEAR);
        }
        writeln!(out, "{text}").and_then(|()| out.flush())
    };
    let written = write();
    if !bar.is_empty() {
        over(&bar);
    }
    match written {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("standard output", e)),
        _ => Ok(()),
    }
}

/// Writes a line of progress, or a note, to standard error; nothing if the user wants it quiet.
pub fn tell(line: impl Display) {
    if hears(Volume::Usual) {
        warn(line);
    }
}

/// Writes a detail to standard error if the user wants those.
pub fn detail(line: impl Display) {
    if hears(Volume::Verbose) {
        warn(line);
    }
}

/// Writes a warning or an error to standard error, however quiet the user wants it.
pub fn warn(line: impl Display) {
    let bar = bar();
    if bar.is_empty() {
        over(&format!("{line}\n"));
    } else {
        over(&format!("{CLEAR}{line}\n{}", *bar));
    }
}

/// Draws `text` as the bar at the bottom of the terminal, in place of the one before; an empty text
/// takes it away. Only where [`bars`] are shown.
pub fn draw(text: &str) {
    let mut bar = bar();
    over(&format!("{CLEAR}{text}"));
    text.clone_into(&mut *bar);
}

/// Whether bars are shown: standard error is a terminal that can move its cursor, and the user does
/// not want it quiet.
pub fn bars() -> bool {
    hears(Volume::Usual) && std::io::stderr().is_terminal() && able()
}

/// Whether standard output, or else standard error, shows colours.
pub fn colours(out: bool) -> bool {
    let terminal =
        if out { std::io::stdout().is_terminal() } else { std::io::stderr().is_terminal() };
    terminal && able() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

/// Whether the terminal understands escape sequences.
fn able() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The columns of the terminal; 80 if there is none, or if it does not say.
pub fn columns() -> usize {
    let says = |columns: u16| (columns > 0).then_some(usize::from(columns));
    rustix::termios::tcgetwinsize(std::io::stderr())
        .or_else(|_| rustix::termios::tcgetwinsize(std::io::stdout()))
        .ok()
        .and_then(|size| says(size.ws_col))
        .unwrap_or(80)
}

fn bar() -> MutexGuard<'static, String> {
    BAR.lock().unwrap_or_else(|e| e.into_inner())
}

/// Writes to standard error and ignores a failure: a terminal that is closed, or a log on a full
/// disk, is no reason to lose the work at hand.
fn over(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// A path as a word that a shell takes as it is. One that looks like a flag is named as a file of
/// its folder.
pub fn quoted(path: impl AsRef<Path>) -> String {
    let path = path.as_ref().as_os_str();
    if path.as_bytes().starts_with(b"-") { word(Path::new(".").join(path)) } else { word(path) }
}

/// The command line of this process, as a shell takes it; the program by its name.
pub fn command_line() -> String {
    let words = std::env::args_os().skip(1).map(word);
    ["picie".to_string()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

/// A word of a command line: bare if nothing in it is special to a shell, else in quotes.
fn word(word: impl AsRef<OsStr>) -> String {
    let bytes = word.as_ref().as_bytes();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/._-+,:@%=".contains(b) || !b.is_ascii();
    match std::str::from_utf8(bytes) {
        Ok(text) if !bytes.is_empty() && bytes.iter().all(plain) => text.into(),
        Ok(text) if !text.chars().any(char::is_control) => {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
        // Bytes that are no text, or would not be seen.
        _ => {
            let byte = |&b: &u8| match b {
                b'\'' | b'\\' => format!("\\{}", char::from(b)),
                b if b.is_ascii() && !b.is_ascii_control() => char::from(b).to_string(),
                b => format!("\\x{b:02x}"),
            };
            format!("$'{}'", bytes.iter().map(byte).collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn quoted_paths_are_one_word_to_a_shell() {
        for (path, word) in [
            ("runs/demo-001", "runs/demo-001"),
            ("my run", "'my run'"),
            ("it's", r"'it'\''s'"),
            ("$HOME/*", "'$HOME/*'"),
            ("-rf", "./-rf"),
            ("фото/ä", "фото/ä"),
            ("~me", "'~me'"),
            ("", "''"),
            ("two\nlines'", r"$'two\x0alines\''"),
        ] {
            assert_eq!(quoted(path), word);
        }
        assert_eq!(["--run", "-q", "--set=a b"].map(word), ["--run", "-q", "'--set=a b'"]);
        let odd: &[&[u8]] =
            &[b"a b", b"it's \"here\"", b"\xff\xfe", b"a\n\tb\\x41'", "ünï\u{7f}".as_bytes()];
        for &path in odd {
            let word = quoted(OsStr::from_bytes(path));
            let told = Command::new("bash").arg("-c").arg(format!("printf %s {word}")).output();
            // What is no text needs bash; without one the others are still held above.
            if let Ok(told) = told {
                assert_eq!(told.stdout, path, "{word}");
            }
        }
    }
}
