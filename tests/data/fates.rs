//! Files that cannot be read as pictures or label maps: what each is, and what helps.

use std::path::Path;

use image::ImageFormat;
use picie::data::decode::{label, rgb, size};
use tiff::encoder::{TiffEncoder, colortype};
use tiff::tags::Tag;

use crate::util::files::gradient;

/// What reading a picture of these bytes says, and reading its size alone.
fn said(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    // The name tells nothing.
    let path = dir.path().join("photo.jpg");
    std::fs::write(&path, bytes).unwrap();
    let why = rgb(&path, true).err().expect("an error").to_string();
    assert_eq!(size(&path, true).unwrap_err().to_string(), why);
    why.rsplit_once("photo.jpg: ").unwrap().1.to_string()
}

fn jpeg() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    gradient(40, 30).write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

const UNKNOWN: &str = "no image of a kind that is read (JPEG, PNG, BMP, WebP and TIFF are)";

#[test]
fn something_else_is_called_what_it_is() {
    for (bytes, what, remedy) in [
        (
            &b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..],
            "this is HEIC (High Efficiency Image Coding), ",
            "remove or convert it",
        ),
        (
            b"<!DOCTYPE html><html></html>",
            "this is a web page (HTML), ",
            "download the file itself, not the page about it",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "this is a Git LFS pointer, ",
            "get the file with git lfs pull",
        ),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "this is JXL (JPEG XL), ", "remove or convert it"),
        (
            b"GIF89a\x01\0\x01\0",
            "this is GIF (Graphics Interchange Format), ",
            "remove or convert it",
        ),
        (b"\x07\x07\x07\x07\xff\xff", "", "remove or convert it"),
    ] {
        assert_eq!(said(bytes), format!("{what}{UNKNOWN}; {remedy}"));
    }
}

#[test]
fn a_sound_jpeg_of_another_kind_is_to_be_converted() {
    let jpeg = jpeg();
    let frame = jpeg.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    let convert = "convert it to PNG or to a usual JPEG";
    for (code, bits, what) in [
        (0xC9, 8, "with arithmetic coding"),
        (0xCA, 8, "with arithmetic coding"),
        (0xC3, 8, "without loss"),
        (0xC1, 12, "of more than 8 bits a colour"),
    ] {
        let mut other = jpeg.clone();
        (other[frame + 1], other[frame + 4]) = (code, bits);
        assert_eq!(said(&other), format!("a JPEG of a kind that is not read, {what}; {convert}"));
    }
    // What follows the header decides nothing.
    let mut broken = jpeg.clone();
    broken[frame + 5..frame + 9].fill(0);
    let why = said(&broken);
    assert!(why.contains("; copy or download it again"), "{why}");
}

#[test]
fn what_is_said_of_a_tiff_is_about_tiff() {
    let mut grey = std::io::Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut grey).unwrap();
    encoder.write_image::<colortype::Gray32Float>(4, 3, &[0.5; 12]).unwrap();
    assert_eq!(
        said(grey.get_ref()),
        "a TIFF of a kind that is not read, grey of 32 bits as floating point, without compression; \
         convert it to PNG or to a usual JPEG"
    );
    // The tag that says what samples mean, in the encoder's order of bytes.
    let tag = grey.get_ref().windows(4).position(|w| w == [0x06, 0x01, 3, 0]).unwrap();
    for (meaning, what) in [(3, "with a palette"), (8, "in L*a*b*")] {
        let mut other = grey.get_ref().clone();
        other[tag + 8] = meaning;
        let want = format!(
            "a TIFF of a kind that is not read, {what} as floating point, without compression; "
        );
        assert!(said(&other).starts_with(&want), "{}", said(&other));
    }
    let raw = said(b"II*\0\x10\0\0\0CR\x02\0\0\0\0\0");
    assert!(raw.starts_with("this is CR2 (Canon Raw 2), no image"), "{raw}");
    let mut signed = std::io::Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut signed).unwrap();
    encoder.write_image::<colortype::RGB32>(2, 2, &[7; 12]).unwrap();
    let why = said(signed.get_ref());
    let want = "a TIFF of a kind that is not read, RGB of 32 bits a colour, without compression; ";
    assert!(why.starts_with(want), "{why}");
    let mut whole = std::io::Cursor::new(Vec::new());
    gradient(40, 30).write_to(&mut whole, ImageFormat::Tiff).unwrap();
    let whole = whole.into_inner();
    let why = said(&whole[..whole.len() / 2]);
    assert!(
        why.starts_with("the TIFF is damaged: ") && why.ends_with("download it again"),
        "{why}"
    );
}

/// A raw file of a camera begins with a small picture, which reads well.
#[test]
fn the_preview_of_a_raw_file_is_no_photo() {
    let raw = |tag: Tag, value: &[u32]| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut bytes).unwrap();
        let mut image = encoder.new_image::<colortype::RGB8>(4, 3).unwrap();
        image.encoder().write_tag(tag, value).unwrap();
        image.write_data(&[9; 36]).unwrap();
        bytes.into_inner()
    };
    let want = "a raw file of a camera, of which only a small preview could be read; convert it to \
                JPEG or PNG";
    assert_eq!(said(&raw(Tag::NewSubfileType, &[1])), want);
    assert_eq!(said(&raw(Tag::Unknown(50706), &[1, 4, 0, 0])), want);
    // A page of several is a picture.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page.tif");
    std::fs::write(&path, raw(Tag::NewSubfileType, &[2])).unwrap();
    assert_eq!((size(&path, true).unwrap(), rgb(&path, true).unwrap().width), ((4, 3), 4));
}

#[test]
fn a_label_map_has_the_same_fates() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("map.png");
    let said = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let said = label(Path::new(&path)).err().expect("an error").to_string();
        said.rsplit_once("map.png: ").unwrap().1.to_string()
    };
    let wanted = "a label map is a grey or a palette PNG, this is";
    assert_eq!(
        said(b"<html>"),
        format!("{wanted} a web page (HTML); download the file itself, not the page about it")
    );
    assert_eq!(
        said(&jpeg()),
        format!(
            "{wanted} JPEG (Joint Photographic Experts Group); convert it so that a pixel's value is \
             its class id"
        )
    );
    assert_eq!(
        said(b"\x07\x07\xff\xfe"),
        format!("{wanted} no PNG; convert it so that a pixel's value is its class id")
    );
    assert!(said(b"\x89PNG\r\n\x1a\n\0\0").starts_with("not a readable PNG: "));
    assert_eq!(said(b""), "the file is empty; copy or download it again");
}
