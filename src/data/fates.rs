//! The three fates of a picture or label map that cannot be read: it is something else, it is
//! damaged, or it is sound and of a kind that is not supported.

use std::error::Error as _;
use std::io::{Cursor, Read, Seek};
use std::path::Path;

use image::{ImageError, ImageFormat};
use tiff::decoder::Decoder;
use tiff::tags::Tag;

use crate::base::Error;
use crate::base::kind::Kind;

/// The remedy for damaged files.
pub const DAMAGED: &str = "copy or download it again";
/// The remedy for sound ones.
const CONVERT: &str = "convert it to PNG or to a usual JPEG";

/// Whether pictures of this format are read.
pub fn is_read(format: ImageFormat) -> bool {
    use ImageFormat::{Bmp, Jpeg, Png, Tiff, WebP};
    matches!(format, Jpeg | Png | Bmp | WebP | Tiff)
}

/// The error for a file without any bytes.
pub fn empty(path: &Path) -> Error {
    Error::file(path, "the file is empty", DAMAGED)
}

/// The error for a file that is no image of a kind that is read.
pub fn not_an_image(path: &Path, bytes: &[u8]) -> Error {
    let what = "no image of a kind that is read (JPEG, PNG, BMP, WebP and TIFF are)";
    match Kind::of(bytes) {
        Some(kind) => {
            let remedy = kind.remedy("remove or convert it").to_string();
            Error::file(path, format!("this is {}, {what}", kind.name), remedy)
        }
        None => Error::file(path, what, "remove or convert it"),
    }
}

/// The error for an image that is not read although its format is.
pub fn unreadable(path: &Path, bytes: &[u8], e: &ImageError) -> Error {
    let format = image::guess_format(bytes).ok().filter(|format| is_read(*format));
    let Some(format) = format.filter(|format| !is_raw(*format, bytes)) else {
        return not_an_image(path, bytes);
    };
    let name = match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::Bmp => "BMP",
        ImageFormat::WebP => "WebP",
        _ => "TIFF",
    };
    let of_jpeg = Some(bytes).filter(|_| format == ImageFormat::Jpeg).and_then(unsupported_jpeg);
    let sound = match (of_jpeg, e) {
        (Some(how), _) => Some(how.to_string()),
        (_, ImageError::Unsupported(_)) if format == ImageFormat::Tiff => Some(of_tiff(bytes)),
        (_, ImageError::Unsupported(e)) => Some(format!("which says: {}", one_line(e))),
        (_, ImageError::Limits(_)) => Some("whose pieces are far larger than it".into()),
        _ => None,
    };
    match sound {
        Some(how) => {
            Error::file(path, format!("a {name} of a kind that is not read, {how}"), CONVERT)
        }
        None => {
            let why = e.source().map_or_else(|| one_line(e), one_line);
            Error::file(path, format!("the {name} is damaged: {why}"), DAMAGED)
        }
    }
}

/// Whether a TIFF is a raw file of a camera, as DNG and NEF are: the picture that it begins with is
/// a small one of another in the file, or it says which version of DNG it is.
pub fn is_of_a_camera(file: impl Read + Seek) -> bool {
    const DNG_VERSION: Tag = Tag::Unknown(50706);
    let Ok(mut tiff) = Decoder::new(file) else { return false };
    let kind = tiff.find_tag_unsigned::<u32>(Tag::NewSubfileType).ok().flatten().unwrap_or(0);
    kind & 1 == 1 || tiff.find_tag(DNG_VERSION).is_ok_and(|version| version.is_some())
}

/// The error for such a file.
pub fn of_a_camera(path: &Path) -> Error {
    let what = "a raw file of a camera, of which only a small preview could be read";
    Error::file(path, what, "convert it to JPEG or PNG")
}

/// Whether a file is a raw one of a camera: those begin as TIFFs do.
fn is_raw(format: ImageFormat, bytes: &[u8]) -> bool {
    format == ImageFormat::Tiff && Kind::of(bytes).is_some_and(|kind| !kind.name.contains("TIFF"))
}

/// What is not supported about a JPEG. `None`: nothing that its header tells.
fn unsupported_jpeg(bytes: &[u8]) -> Option<&'static str> {
    // Start of frame: how it is coded, then a length of two bytes, then the bits of a sample.
    let (code, at) = segments(bytes).find(|(code, _)| {
        matches!(code, 0xC0..=0xCF | 0xF7) && ![0xC4, 0xC8, 0xCC].contains(code)
    })?;
    match code {
        0xC9..=0xCF => Some("with arithmetic coding"),
        0xC3 => Some("without loss"),
        0xF7 => Some("JPEG-LS"),
        0xC5..=0xC7 => Some("hierarchical"),
        _ => (bytes.get(at + 4) != Some(&8)).then_some("of more than 8 bits a colour"),
    }
}

/// The kind of a TIFF that is not supported.
fn of_tiff(bytes: &[u8]) -> String {
    let Ok(mut tiff) = Decoder::new(Cursor::new(bytes)) else { return "which says no more".into() };
    let number = |tiff: &mut Decoder<_>, tag| tiff.find_tag_unsigned::<u16>(tag).ok().flatten();
    use tiff::ColorType::{CMYK, CMYKA, Gray, GrayA, Lab, Multiband, Palette, RGB, RGBA, YCbCr};
    let colours = match tiff.colortype() {
        Ok(Gray(bits)) => format!("grey of {bits} bits"),
        Ok(GrayA(bits)) => format!("grey with alpha of {bits} bits"),
        Ok(RGB(bits)) => format!("RGB of {bits} bits a colour"),
        Ok(RGBA(bits)) => format!("RGB with alpha of {bits} bits a colour"),
        Ok(CMYK(bits)) => format!("CMYK of {bits} bits a colour"),
        Ok(Palette(_)) => "with a palette".into(),
        Ok(Lab(_)) => "in L*a*b*".into(),
        Ok(YCbCr(_)) => "in YCbCr".into(),
        Ok(CMYKA(_)) => "in CMYK with alpha".into(),
        Ok(Multiband { num_samples, .. }) => format!("of {num_samples} bands"),
        // Colours that a later version of the library knows.
        Ok(_) => "of unusual colours".into(),
        Err(_) => match number(&mut tiff, Tag::PhotometricInterpretation) {
            Some(3) => "with a palette".into(),
            Some(8..=10) => "in L*a*b*".into(),
            _ => "of unusual colours".into(),
        },
    };
    let samples = match number(&mut tiff, Tag::SampleFormat) {
        Some(2) => " as signed numbers",
        Some(3) => " as floating point",
        Some(4..) => " of an unusual kind",
        _ => "",
    };
    let packed = match number(&mut tiff, Tag::Compression).unwrap_or(1) {
        1 => "without compression".into(),
        2..=4 => "with fax compression".into(),
        5 => "with LZW".into(),
        6 | 7 => "with JPEG compression".into(),
        8 | 0x80B2 => "with Deflate".into(),
        0x8005 => "with PackBits".into(),
        34712 => "with JPEG 2000".into(),
        34887 => "with LERC".into(),
        50000 => "with Zstandard".into(),
        50001 => "with WebP".into(),
        50002 => "with JPEG XL".into(),
        other => format!("with compression {other}"),
    };
    format!("{colours}{samples}, {packed}")
}

/// Whether an end-of-image marker (FF D9) follows the first scan. Inside a scan these two bytes
/// never stand side by side.
///
/// NOTE: the decoder fills what is missing with grey and says nothing.
pub fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let scan = segments(bytes).find(|(code, _)| *code == 0xDA);
    scan.is_some_and(|(_, at)| bytes[at..].windows(2).rev().any(|w| w == [0xFF, 0xD9]))
}

/// The segments of a JPEG up to its first scan: the code of each, and where its marker is.
fn segments(bytes: &[u8]) -> impl Iterator<Item = (u8, usize)> {
    let mut at = 2;
    std::iter::from_fn(move || {
        loop {
            let &[mark, code, high, low] = bytes.get(at..at + 4)? else { return None };
            let here = at;
            at += match (mark, code) {
                (0xFF, 0x01 | 0xD0..=0xD7) => 2,
                (0xFF, 0x02..) if code != 0xFF => {
                    at += 2 + (usize::from(high) << 8 | usize::from(low));
                    return Some((code, here));
                }
                // Fill bytes and stray ones between segments.
                _ => 1,
            };
        }
    })
}

/// The text of an error without its line ends.
pub fn one_line<E: std::error::Error + ?Sized>(e: &E) -> String {
    e.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
