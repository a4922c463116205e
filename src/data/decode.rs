//! Reads a file as RGB pixels, or as the values of a label map.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::Path;

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat};

use super::fates::{
    DAMAGED, empty, is_of_a_camera, is_read, jpeg_is_whole, not_an_image, of_a_camera, one_line,
    unreadable,
};
use super::large::{self, Alone};
use crate::base::kind::{Kind, TELLING};
use crate::base::{Error, Result, memory};

/// Bytes that the pieces of a picture may take where it is smaller itself, as in a small TIFF that
/// is one large tile.
const PIECES: u64 = 32 << 20;

/// A decoded picture.
pub struct Rgb {
    pub width: usize,
    pub height: usize,
    /// u8 (H, W, 3).
    pub pixels: Vec<u8>,
    /// Keeps other large pictures out of memory while this one is used.
    pub alone: Alone,
}

/// A decoded label map.
pub struct LabelMap {
    pub width: usize,
    pub height: usize,
    /// u8 (H, W), the values as they stand in the file.
    pub ids: Vec<u8>,
    /// Keeps other large pictures out of memory while this one is used.
    pub alone: Alone,
}

/// Reads an image of any kind as 8-bit RGB: grey is repeated, CMYK converted as Adobe writes it, 16
/// bits scaled to 8, alpha dropped (the colour below it stays, as in Pillow's `convert("RGB")`),
/// with `exif` turned upright as its EXIF orientation says (a TIFF's tag of that name, too). The
/// format is taken from the content, not the name.
///
/// NOTE: the reference code does not turn pictures. Numbers on a data set are comparable with
/// published ones where its files carry no such tag, or where [`rgb_of_label`] decides.
pub fn rgb(path: &Path, exif: bool) -> Result<Rgb> {
    read_rgb(path, |_, _| exif)
}

/// Reads as [`rgb`] does, for a picture with the label map `label`, which is never turned itself.
/// Labels decide: a picture that has its label map's size only as it is stored is not turned. A
/// label map that cannot be read decides nothing.
pub fn rgb_of_label(path: &Path, label: &Path, exif: bool) -> Result<Rgb> {
    let label = dimensions(label);
    read_rgb(path, |stored, upright| exif && (label != Some(stored) || label == Some(upright)))
}

/// (width, height) of an image as it is stored; `None` if that cannot be read.
pub fn dimensions(path: &Path) -> Option<(usize, usize)> {
    let reader = image::ImageReader::open(path).and_then(|r| r.with_guessed_format()).ok()?;
    reader.into_dimensions().ok().map(|(w, h)| (w as usize, h as usize))
}

/// An image as it is stored, and what its header says.
struct Decoded {
    image: DynamicImage,
    format: ImageFormat,
    stored: (usize, usize),
    orientation: Orientation,
    upright: (usize, usize),
    alone: Alone,
}

/// Reads an image as it is stored.
fn decoded(path: &Path) -> Result<Decoded> {
    let bytes = read(path)?;
    if bytes.starts_with(&[0xFF, 0xD8]) && !jpeg_is_whole(&bytes) {
        return Err(Error::file(path, "the JPEG is cut short", DAMAGED));
    }
    let reader = image::ImageReader::new(Cursor::new(&bytes))
        .with_guessed_format()
        .map_err(|e| Error::io(path, e))?;
    let Some(format) = reader.format().filter(|format| is_read(*format)) else {
        return Err(not_an_image(path, &bytes));
    };
    if format == ImageFormat::Tiff && is_of_a_camera(Cursor::new(&bytes)) {
        return Err(of_a_camera(path));
    }
    let unreadable = |e| unreadable(path, &bytes, &e);
    let mut decoder = reader.into_decoder().map_err(unreadable)?;
    let Header { stored, orientation, upright } = Header::read(&mut decoder);
    if stored.0 == 0 || stored.1 == 0 {
        return Err(Error::file(path, "the image has no pixels", DAMAGED));
    }
    let (size, decoded) = ((stored.0 as u64, stored.1 as u64), decoder.total_bytes());
    check(path, format, size, bytes.len() as u64)?;
    // What is decoded, and the coefficients of a JPEG that comes in passes, or RGB before and after
    // it is turned.
    let alone = large::alone(path, size, decoded + 6 * size.0 * size.1)?;
    let mut limits = image::Limits::no_limits();
    limits.max_alloc = Some(3 * decoded.max(PIECES));
    decoder.set_limits(limits).map_err(unreadable)?;
    let image = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
    Ok(Decoded { image, format, stored, orientation, upright, alone })
}

/// Reads an image as RGB. `turn` gets (width, height) as stored and upright, and says whether to
/// turn it.
fn read_rgb(path: &Path, turn: impl Fn((usize, usize), (usize, usize)) -> bool) -> Result<Rgb> {
    let Decoded { image, stored, orientation, upright, alone, .. } = decoded(path)?;
    let floats = match &image {
        DynamicImage::ImageRgb32F(image) => &image.as_raw()[..],
        DynamicImage::ImageRgba32F(image) => &image.as_raw()[..],
        _ => &[],
    };
    // A few parts in a thousand are what filters leave beyond the ends.
    if floats.iter().any(|v| !(-0.01..=1.01).contains(v)) {
        return Err(Error::file(
            path,
            "a picture of floating point whose values are not within 0 to 1",
            "scale them to 0 to 1, or convert it to 8 or 16 bits",
        ));
    }
    // Turning costs least at three bytes a pixel.
    let mut image = DynamicImage::from(image.into_rgb8());
    if turn(stored, upright) {
        image.apply_orientation(orientation);
    }
    Ok(Rgb {
        width: image.width() as usize,
        height: image.height() as usize,
        pixels: image.into_rgb8().into_raw(),
        alone,
    })
}

/// Fails if a header claims more pixels than are read, or than a file of `bytes` bytes can hold.
fn check(path: &Path, format: ImageFormat, size: (u64, u64), bytes: u64) -> Result<()> {
    large::check(path, size)?;
    match format {
        ImageFormat::Png => large::check_claim(path, size, bytes, large::PNG),
        ImageFormat::Jpeg => large::check_claim(path, size, bytes, large::JPEG),
        _ => Ok(()),
    }
}

/// Reads (width, height) of an image, as [`rgb`] would turn it, from its header alone. Where that
/// does not do, all of it is read, which says why.
pub fn size(path: &Path, exif: bool) -> Result<(usize, usize)> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let bytes = file.metadata().map_err(|e| Error::io(path, e))?.len();
    let reader = image::ImageReader::new(BufReader::new(file)).with_guessed_format();
    let known = reader.ok().and_then(|reader| {
        let format = reader.format().filter(|format| is_read(*format))?;
        let mut file = reader.into_inner();
        if format == ImageFormat::Tiff && is_of_a_camera(&mut file) {
            return None;
        }
        file.rewind().ok()?;
        Some((format, image::ImageReader::with_format(file, format).into_decoder().ok()?))
    });
    match known {
        Some((format, mut decoder)) => {
            let header = Header::read(&mut decoder);
            check(path, format, (header.stored.0 as u64, header.stored.1 as u64), bytes)?;
            Ok(if exif { header.upright } else { header.stored })
        }
        None => rgb(path, exif).map(|image| (image.width, image.height)),
    }
}

/// What an image's header says of its shape.
struct Header {
    /// (width, height) of the pixels in the file.
    stored: (usize, usize),
    /// How the picture is to be turned.
    orientation: Orientation,
    /// (width, height) when that is done.
    upright: (usize, usize),
}

impl Header {
    /// Reads the header. An orientation that makes no sense turns nothing.
    fn read(decoder: &mut impl ImageDecoder) -> Self {
        use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
        let (width, height) = decoder.dimensions();
        let (w, h) = (width as usize, height as usize);
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let sideways = matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH);
        let upright = if sideways { (h, w) } else { (w, h) };
        Header { stored: (w, h), orientation, upright }
    }
}

/// Whether a picture could be a label map by its header and length: a JPEG of colours must be
/// packed into less than a bit a pixel, beside a kilobyte of header.
///
/// NOTE: photos take more, and to decode them only to know takes as long as to read them.
pub fn may_be_labels(path: &Path) -> bool {
    let reader = image::ImageReader::open(path).and_then(|r| r.with_guessed_format()).ok();
    let Some(reader) = reader else { return false };
    if reader.format() != Some(ImageFormat::Jpeg) {
        return true;
    }
    let Ok(decoder) = reader.into_decoder() else { return false };
    let ((width, height), bytes) = (decoder.dimensions(), path.metadata().map_or(0, |f| f.len()));
    decoder.color_type() == ColorType::L8
        || 8 * bytes.saturating_sub(1 << 10) < u64::from(width) * u64::from(height)
}

/// Pixels of a picture as its file has them, whatever their depth.
pub struct Pixels {
    bytes: Vec<u8>,
    /// The bytes of a pixel.
    depth: usize,
    /// Whether the file is a JPEG of colours, which smears them.
    pub smeared: bool,
}

impl Pixels {
    /// The colour of each pixel.
    pub fn colours(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks_exact(self.depth)
    }
}

/// Reads about `most` pixels of a picture, at even distances.
pub fn some_pixels(path: &Path, most: usize) -> Result<Pixels> {
    let Decoded { image, format, stored, .. } = decoded(path)?;
    let depth = usize::from(image.color().bytes_per_pixel());
    let step = (stored.0 * stored.1).div_ceil(most);
    let bytes = image.as_bytes().chunks_exact(depth).step_by(step).flatten().copied().collect();
    let smeared = format == ImageFormat::Jpeg && image.color() != ColorType::L8;
    Ok(Pixels { bytes, depth, smeared })
}

/// The remedy for label maps of another kind.
const AS_IDS: &str = "convert it so that a pixel's value is its class id";
const AS_COLOURS: &str = "name the colours of classes in classes.json, or convert it so that a pixel's value is its class id";

/// Reads a label map: a grey PNG of 1 to 16 bits, or one with a palette, whose *index* is the id.
pub fn label(path: &Path) -> Result<LabelMap> {
    coloured_label(path, &[], false)
}

/// Reads as [`label`] does; with `colours`, a colour PNG or one with a palette holds those colours,
/// each of which stands for an id. With `or_index` a palette of other colours does not count, and
/// the indices are the ids.
pub fn coloured_label(path: &Path, colours: &[([u8; 3], u8)], or_index: bool) -> Result<LabelMap> {
    let bytes = read(path)?;
    if !bytes.starts_with(b"\x89PNG") {
        let kind = Kind::of(&bytes);
        let this = kind.as_ref().map_or("no PNG", |kind| &kind.name);
        let what = format!("a label map is a grey or a palette PNG, this is {this}");
        let remedy = kind.as_ref().map_or(AS_IDS, |kind| kind.remedy(AS_IDS));
        return Err(Error::file(path, what, remedy));
    }
    let damaged = |e: png::DecodingError| {
        Error::file(path, format!("not a readable PNG: {}", one_line(&e)), DAMAGED)
    };
    let mut reader = png::Decoder::new(Cursor::new(&bytes)).read_info().map_err(damaged)?;
    let (width, height) = (reader.info().width.into(), reader.info().height.into());
    check(path, ImageFormat::Png, (width, height), bytes.len() as u64)?;
    let (color, depth) = reader.output_color_type();
    let channels = match color {
        png::ColorType::Rgb => 3,
        png::ColorType::Rgba => 4,
        _ => 1,
    };
    let bits = match (color, depth) {
        (png::ColorType::Rgb | png::ColorType::Rgba, png::BitDepth::Eight)
            if !colours.is_empty() =>
        {
            8
        }
        (png::ColorType::Grayscale | png::ColorType::Indexed, depth) => depth as usize,
        _ => {
            return Err(Error::file(
                path,
                format!(
                    "a label map is a grey or a palette PNG, this one is {color:?} of {} bits",
                    depth as u8
                ),
                match (channels, depth) {
                    (3 | 4, png::BitDepth::Eight) => AS_COLOURS,
                    _ => AS_IDS,
                },
            ));
        }
    };
    let size = reader
        .output_buffer_size()
        .ok_or_else(|| Error::file(path, "too large a label map", "make it smaller"))?;
    // What is decoded, and a byte for each pixel.
    let alone = large::alone(path, (width, height), size as u64 + width * height)?;
    let mut rows = vec![0; size];
    let info = reader.next_frame(&mut rows).map_err(damaged)?;
    let (width, height) = (info.width as usize, info.height as usize);
    let id = |colour: &[u8]| {
        let known = colours.iter().find(|(known, _)| known[..] == colour[..3]);
        known.map(|&(_, id)| id).ok_or_else(|| {
            let what =
                format!("the label map holds the colour {:?}, which no class has", &colour[..3]);
            Error::file(path, what, "use the published colours, or grey ids")
        })
    };
    if bits == 8 {
        rows.truncate(width * height * channels);
    } else if bits == 16 {
        let value = |pixel: &[u8]| {
            let value = u16::from_be_bytes([pixel[0], pixel[1]]);
            u8::try_from(value).map_err(|_| {
                let what = format!("the label map holds the value {value}, and 255 is the largest");
                Error::file(path, what, AS_IDS)
            })
        };
        rows = rows[..2 * width * height].chunks_exact(2).map(value).collect::<Result<_>>()?;
    } else {
        // 1, 2 or 4 bits a pixel, the first pixel of a byte in its high bits, each row from a new
        // byte.
        let pixel = |row: &[u8], x: usize| {
            row[x * bits / 8] >> (8 - bits - x * bits % 8) & ((1 << bits) - 1)
        };
        rows = rows
            .chunks_exact(info.line_size)
            .flat_map(|row| (0..width).map(move |x| pixel(row, x)))
            .collect();
    }
    let known = |palette: &[u8]| {
        let used: BTreeSet<u8> = rows.iter().copied().collect();
        let mut used = used.into_iter().map(|i| palette.chunks_exact(3).nth(i.into()));
        used.all(|entry| colours.iter().any(|(colour, _)| entry == Some(colour)))
    };
    let palette = reader.info().palette.as_deref().filter(|_| !colours.is_empty());
    let palette = palette.filter(|palette| !or_index || known(palette));
    let ids = match palette {
        _ if channels > 1 => rows.chunks_exact(channels).map(id).collect::<Result<_>>()?,
        Some(palette) => {
            let entry = |&i: &u8| match palette.chunks_exact(3).nth(i.into()) {
                Some(colour) => id(colour),
                None => Err(Error::file(path, format!("its palette has no colour {i}"), DAMAGED)),
            };
            rows.iter().map(entry).collect::<Result<_>>()?
        }
        None => rows,
    };
    Ok(LabelMap { width, height, ids, alone })
}

/// Reads the bytes of a file. Of one that does not begin as a picture those are enough that tell
/// what it is: the rest may be hours of video. Errors: it is empty, or memory does not hold it.
fn read(path: &Path) -> Result<Vec<u8>> {
    let (io, mut bytes) = (|e| Error::io(path, e), Vec::new());
    let file = File::open(path).map_err(io)?;
    (&file).take(TELLING as u64).read_to_end(&mut bytes).map_err(io)?;
    if bytes.is_empty() {
        return Err(empty(path));
    }
    if image::guess_format(&bytes).is_ok_and(is_read) {
        let length = file.metadata().map_err(io)?.len();
        if length >= large::SMALL {
            memory::check(path, length)?;
        }
        (&file).read_to_end(&mut bytes).map_err(io)?;
    }
    Ok(bytes)
}
