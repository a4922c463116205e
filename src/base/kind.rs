//! What a file is by its first bytes, where it is not what was wanted.

use file_format::{FileFormat, Kind as Sort};

/// The number of first bytes that tell what a file is.
pub const TELLING: usize = 512;

/// Beginnings that no library knows: what they are, and what helps if it is always the same.
const BEGINNINGS: [(&[u8], &str, Option<&str>); 6] = [
    (b"version https://git-lfs", "a Git LFS pointer", Some("get the file with git lfs pull")),
    (b"/annex/objects/", "a git-annex pointer", Some("get the file with git annex get")),
    (b"../.git/annex/", "a git-annex pointer", Some("get the file with git annex get")),
    (b"\x89HDF\r\n\x1a\n", "HDF5, as Keras and MATLAB write it", None),
    (b"\x93NUMPY", "a NumPy array", None),
    (b"GGUF", "GGUF, as language models have it", None),
];

/// The remedy for a web page: a link was saved, or a server asked for a login.
const DOWNLOAD: &str = "download the file itself, not the page about it";

/// The remedy for a file that is not all there.
const AGAIN: &str = "copy or download it again";

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// What the file is, as a sentence goes on after "this is".
    pub name: String,
    /// What helps, whatever was wanted.
    remedy: Option<&'static str>,
}

impl Kind {
    /// What a file with these first bytes is. `None`: they tell nothing.
    pub fn of(head: &[u8]) -> Option<Self> {
        let head = &head[..head.len().min(TELLING)];
        let kind = |name: &str, remedy| Some(Kind { name: name.into(), remedy });
        if let Some((_, name, remedy)) = BEGINNINGS.iter().find(|(b, ..)| head.starts_with(b)) {
            return kind(name, *remedy);
        }
        if let Some(text) = text(head) {
            let has = |word: &str| text.contains(word);
            return match text.trim_start_matches('\u{feff}').trim_start() {
                page if page.starts_with("<!doctype html") || has("<html") || has("<head") => {
                    kind("a web page (HTML)", Some(DOWNLOAD))
                }
                _ if has("<svg") => kind("SVG (a drawing)", None),
                _ if has("<error") || has("<?xml") => kind("XML", Some(DOWNLOAD)),
                json if json.starts_with(['{', '[']) => kind("JSON", None),
                _ => kind("text", None),
            };
        }
        if is_onnx(head) {
            return kind("ONNX", None);
        }
        if !head.is_empty() && head.iter().all(|&byte| byte == 0) {
            return kind("nothing but zeros, as a broken download leaves", Some(AGAIN));
        }
        let format = FileFormat::from_bytes(head);
        let remedy = match format.kind() {
            // Pictures of other kinds begin as Windows' cursors do.
            _ if matches!(
                format,
                FileFormat::Empty | FileFormat::ArbitraryBinaryData | FileFormat::WindowsCursor
            ) =>
            {
                return None;
            }
            Sort::Archive | Sort::Compressed | Sort::Package => Some("unpack it first"),
            _ => None,
        };
        let name = match format.short_name() {
            Some(short) if short != format.name() => format!("{short} ({})", format.name()),
            _ => format.name().into(),
        };
        Some(Kind { name, remedy })
    }

    /// What helps: `usual` unless the kind has its own remedy.
    pub fn remedy<'a>(&self, usual: &'a str) -> &'a str {
        self.remedy.unwrap_or(usual)
    }
}

/// The first bytes of a text, in lower case; `None` if they are none. A last letter may be cut. A
/// page may be in an older encoding than UTF-8, whose own letters then stand for nothing.
fn text(head: &[u8]) -> Option<String> {
    let text = match std::str::from_utf8(head) {
        Err(_) if head.trim_ascii_start().starts_with(b"<") => &String::from_utf8_lossy(head),
        Err(e) if e.error_len().is_some() || head.len() < TELLING => return None,
        Err(e) => std::str::from_utf8(&head[..e.valid_up_to()]).ok()?,
        Ok(text) => text,
    };
    let control = |c: char| c.is_control() && !c.is_whitespace();
    (!text.is_empty() && !text.contains(control)).then(|| text.to_lowercase())
}

/// Whether a protocol buffer begins as ONNX does: field 1, its version, then field 2, the name of
/// the program that wrote it.
fn is_onnx(head: &[u8]) -> bool {
    match head {
        [0x08, 1..=32, 0x12, length, name @ ..] => {
            let name = name.get(..usize::from(*length)).unwrap_or_default();
            !name.is_empty() && name.iter().all(|b| b.is_ascii_graphic())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_what_a_file_is() {
        let long = "é".repeat(TELLING);
        for (head, name, remedy) in [
            (&b"\0\0\0\x18ftypheic\0\0\0\0"[..], "HEIC (High Efficiency Image Coding)", "usual"),
            (b"\n <!DOCTYPE html><p>", "a web page (HTML)", DOWNLOAD),
            (b"<HTML>", "a web page (HTML)", DOWNLOAD),
            (b"<html><title>M\xfcnchen</title>", "a web page (HTML)", DOWNLOAD),
            (b"<?xml version='1.0'?><Error><Code>AccessDenied", "XML", DOWNLOAD),
            (b"<?xml version='1.0'?><svg>", "SVG (a drawing)", "usual"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
                "a Git LFS pointer",
                "get the file with git lfs pull",
            ),
            (b"\x1f\x8b\x08\0\0\0\0\0", "GZ (gzip)", "unpack it first"),
            (b"PK\x03\x04\x14\0", "ZIP", "unpack it first"),
            (b"\0\0\0\x18ftypmp42", "MP4 (MPEG-4 Part 14)", "usual"),
            (b"\x89HDF\r\n\x1a\n\0", "HDF5, as Keras and MATLAB write it", "usual"),
            (b"\x08\x07\x12\x07pytorch\x1a", "ONNX", "usual"),
            (b"{\"error\": 404}", "JSON", "usual"),
            (b"hello", "text", "usual"),
            (long.as_bytes(), "text", "usual"),
        ] {
            let kind = Kind::of(head).unwrap_or_else(|| panic!("{name}"));
            assert_eq!((&*kind.name, kind.remedy("usual")), (name, remedy));
        }
        assert_eq!(Kind::of(&[0; 40]).unwrap().remedy("usual"), AGAIN);
        for unknown in [&b""[..], b"\0\0\x02\0\0\0", &[7, 200, 3, 9, 250], b"\x08\x07\x12\x07\0\0"]
        {
            assert_eq!(Kind::of(unknown), None, "{unknown:?}");
        }
    }
}
