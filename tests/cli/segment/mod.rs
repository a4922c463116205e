mod inputs;
mod looks;
mod outputs;
mod refine;

use std::path::Path;

use image::{DynamicImage, ImageFormat};

use super::{Place, TINY, files, holds, scenes, trained};
use crate::util::files::with_orientation;
use crate::util::softgpu;

fn photo(w: u32, h: u32) -> DynamicImage {
    image::RgbImage::from_fn(w, h, |x, y| image::Rgb([(x * 3) as u8, (y * 5) as u8, (x * y) as u8]))
        .into()
}

/// The size, the values and the palette of a label map.
fn label_map(path: &Path) -> ((u32, u32), Vec<u8>, Vec<u8>) {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let palette = reader.info().palette.as_ref().unwrap().to_vec();
    let mut values = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut values).unwrap();
    (reader.info().size(), values, palette)
}

#[test]
fn each_photo_gets_labels_and_an_overlay_of_its_own_size() {
    let place = Place::new();
    let photos: [(&str, DynamicImage, ImageFormat); 8] = [
        ("wide one.jpg", photo(97, 50), ImageFormat::Jpeg),
        ("grey.png", photo(40, 61).into_luma8().into(), ImageFormat::Png),
        ("ünï ☃.webp", photo(33, 34), ImageFormat::WebP),
        ("clear.tif", photo(35, 32).into_rgba8().into(), ImageFormat::Tiff),
        ("deep.BMP", photo(64, 64), ImageFormat::Bmp),
        ("sixteen.png", photo(31, 65).into_rgb16().into(), ImageFormat::Png),
        ("pixel.png", photo(1, 1), ImageFormat::Png),
        // At its aspect the network's input would be 32 × 96000.
        ("strip.png", photo(1, 3000), ImageFormat::Png),
    ];
    for (name, photo, format) in &photos {
        photo.save_with_format(place.join(name), *format).unwrap();
    }
    let whole = std::fs::read(place.join("wide one.jpg")).unwrap();
    std::fs::write(place.join("short.jpg"), &whole[..whole.len() - 20]).unwrap();
    std::fs::write(place.join("zero.jpg"), "").unwrap();
    std::fs::write(place.join("notes.txt"), "no image").unwrap();
    std::fs::write(place.join("anim.gif"), b"GIF89a\x01\x00\x01\x00\x00\x00\x00;").unwrap();
    std::fs::create_dir(place.join("folder")).unwrap();

    let bad = ["short.jpg", "zero.jpg", "notes.txt", "anim.gif", "folder", "gone.jpg"];
    let names = bad.into_iter().chain(photos.iter().map(|p| p.0));
    let words =
        format!("segment --checkpoint {} --out", trained().join("epoch-02.safetensors").display());
    let ran = place.picie_on(&words, ["the out/put"].into_iter().chain(names));
    // One bad photo does not lose the others.
    assert_eq!(ran.code, Some(1), "{ran:?}");
    for (name, why) in bad.into_iter().zip([
        "the JPEG is cut short; copy or download it again",
        "the file is empty; copy or download it again",
        "this is text, no image of a kind that is read (JPEG, PNG, BMP, WebP and TIFF are); remove or convert it",
        "this is GIF (Graphics Interchange Format), no image of a kind that is read (JPEG, PNG, BMP, WebP and TIFF are); remove or convert it",
        "there are no photos below this folder; name another one",
        "no such file or directory; check the path",
    ]) {
        holds(&ran.err, &[&format!("picie: {name}: {why}\n")]);
    }
    holds(ran.err.lines().last().unwrap(), &["6 of 14 photos were left out"]);
    let lines: Vec<&str> = ran.out.lines().collect();
    let all = "8 photos: the out/put/segments.json, the out/put/sheet.png";
    assert_eq!((lines.len(), lines[8]), (9, all), "{ran:?}");
    holds(&ran.err, &["input: short side 64, twice the training's 32 (see --size)"]);
    holds(&ran.err, &["segment            8 photos in "]);
    assert_eq!(files(&place.join("the out/put")).len(), 2 * photos.len() + 2);
    for (name, photo, _) in &photos {
        let out = |what: &str| {
            let stem = name.rsplit_once('.').unwrap().0;
            image::open(place.join(format!("the out/put/{stem}-{what}.png"))).unwrap()
        };
        let (labels, overlay) = (out("labels"), out("overlay"));
        for picture in [&labels, &overlay] {
            assert_eq!(
                (picture.width(), picture.height()),
                (photo.width(), photo.height()),
                "{name}"
            );
        }
        let stem = name.rsplit_once('.').unwrap().0;
        let (_, values, palette) = label_map(&place.join(format!("the out/put/{stem}-labels.png")));
        assert_eq!(palette.len(), 3 * 9);
        assert!(values.iter().all(|&cluster| cluster < 9), "{name}");
        assert_eq!(overlay.color(), image::ColorType::Rgb8, "{name}");
    }
}

#[test]
fn a_photo_among_many_sizes_gets_the_same_labels_as_alone() {
    let place = Place::new();
    photo(97, 50).save(place.join("a.png")).unwrap();
    photo(50, 97).save(place.join("b.png")).unwrap();
    let checkpoint = trained().join("epoch-02.safetensors");
    let segment = |out: &str, more: &str, photos: &str| {
        place
            .picie(&format!(
                "segment --checkpoint {} --out {out} {more} {photos}",
                checkpoint.display()
            ))
            .succeeds();
        std::fs::read(place.join(format!("{out}/a-labels.png"))).unwrap()
    };
    let alone = segment("alone", "", "a.png");
    assert_eq!(segment("both", "", "b.png a.png"), alone);
    // Another input size is another segmentation, of the same size.
    assert_ne!(segment("fine", "--size 96", "a.png"), alone);
    let fine = image::open(place.join("fine/a-labels.png")).unwrap();
    assert_eq!((fine.width(), fine.height()), (97, 50));
}

/// Each shape of the network's input has its convolutions planned, so photos share shapes.
#[test]
fn photos_of_ten_sizes_share_five_shapes() {
    if softgpu::has_gpu() {
        return;
    }
    let plans = |sizes: &[(u32, u32)]| -> Option<usize> {
        let place = Place::new();
        let names = sizes.iter().map(|&(w, h)| {
            let name = format!("{w}x{h}.png");
            photo(w, h).save(place.join(&name)).unwrap();
            name
        });
        let names = names.collect::<Vec<_>>().join(" ");
        let checkpoint = trained().join("epoch-02.safetensors");
        let words =
            format!("segment --checkpoint {} --out out --size 64 {names}", checkpoint.display());
        let ran = place
            .gpu("SOFTCUDNN_COUNTS=counts", &format!("{words} --device cuda --autotune off"))?;
        ran.succeeds();
        let counts = std::fs::read_to_string(place.join("counts")).unwrap();
        let plans = counts.lines().find_map(|line| line.strip_prefix("plans "));
        Some(plans.unwrap().parse().unwrap())
    };
    let Some(one) = plans(&[(100, 133)]) else { return };
    // Square, lying and standing; with long sides of 96 and 128 pixels.
    let sizes = [
        (80, 80),
        (90, 81),
        (100, 133),
        (80, 99),
        (99, 80),
        (140, 100),
        (80, 131),
        (190, 100),
        (81, 160),
        (150, 81),
    ];
    let ten = plans(&sizes).unwrap();
    assert!(one > 0 && ten <= 5 * one, "{one} plans for one photo, {ten} for ten");
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_is() {
    let place = Place::new();
    for name in ["a.png", "b.png"] {
        photo(40, 40).save(place.join(name)).unwrap();
    }
    std::fs::create_dir(place.join("other")).unwrap();
    photo(40, 40).save(place.join("other/a.png")).unwrap();
    std::fs::write(place.join("file"), "").unwrap();
    let segment = |more: &str| {
        let checkpoint = trained().join("epoch-02.safetensors");
        place.picie(&format!("segment --checkpoint {} {more}", checkpoint.display())).fails()
    };
    holds(
        &segment("--out out a.png b.png other/a.png"),
        &["a.png and other/a.png would both be written to", "rename one"],
    );
    assert_eq!(files(&place.join("out")).len(), 0);
    holds(&segment("--out file a.png"), &["file: file exists; choose another path"]);
    // Files count, not their names.
    std::fs::copy(place.join("a.png"), place.join("a-labels.png")).unwrap();
    std::os::unix::fs::symlink(place.join("b.png"), place.join("other/a-overlay.png")).unwrap();
    for words in ["--out . a.png a-labels.png", "--out other a.png b.png"] {
        let said = segment(words);
        holds(&said, &["of a.png would be written over ", "give another folder with --out"]);
    }
    let same = std::fs::read(place.join("a.png")).unwrap();
    assert!(std::fs::read(place.join("a-labels.png")).unwrap() == same);
    assert_eq!(files(&place.join("other")).len(), 2);
    holds(&segment("--out out --size 33 a.png"), &["--size 33; use a multiple of 32"]);
    // What cannot be read was given, too.
    std::fs::create_dir(place.join("in")).unwrap();
    std::fs::copy(place.join("a.png"), place.join("in/x.png")).unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\n";
    std::fs::write(place.join("in/x-labels.png"), pointer).unwrap();
    let checkpoint = trained().join("epoch-02.safetensors");
    let words = format!("segment --checkpoint {} --out in", checkpoint.display());
    let ran = place.picie(&format!("{words} in/x.png in/x-labels.png"));
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    holds(&ran.err, &["of in/x.png would be written over in/x-labels.png"]);
    assert_eq!(std::fs::read_to_string(place.join("in/x-labels.png")).unwrap(), pointer);
    assert_eq!(files(&place.join("in")).len(), 2);
}

/// One place that cannot be written to, or is taken, leaves out its photo alone.
#[test]
fn places_that_are_taken_leave_out_their_photos() {
    let place = Place::new();
    for name in ["a.png", "b.png", "c.png", "d.png"] {
        photo(40, 40).save(place.join(name)).unwrap();
    }
    std::fs::create_dir_all(place.join("out/b-labels.png")).unwrap();
    photo(20, 20).save(place.join("out/c-overlay.png")).unwrap();
    let drawn = std::fs::read(place.join("out/c-overlay.png")).unwrap();
    let checkpoint = trained().join("epoch-02.safetensors");
    let words = format!("segment --checkpoint {} --out out", checkpoint.display());
    for _ in 0..2 {
        // Its own pictures are drawn again.
        let ran = place.picie(&format!("{words} a.png b.png c.png d.png"));
        assert_eq!(ran.code, Some(1), "{ran:#?}");
        let said = [
            "out/b-labels.png: is a directory",
            "out/c-overlay.png: there is an image that picie did not draw",
            "2 of 4 photos were left out",
        ];
        holds(&ran.err, &said);
        assert_eq!(files(&place.join("out")).len(), 7);
    }
    assert!(std::fs::read(place.join("out/c-overlay.png")).unwrap() == drawn);
}

/// A network that was trained on photos as they are stored gets these so, too.
#[test]
fn a_network_of_photos_that_were_not_turned_gets_them_unturned() {
    let place = Place::new();
    let mut jpeg = std::io::Cursor::new(Vec::new());
    photo(96, 64).write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
    let turned = with_orientation(&jpeg.into_inner(), 6);
    std::fs::write(place.join("phone.jpg"), turned).unwrap();
    let data = scenes().display();
    let tiny = TINY.replace("--epochs 2", "--epochs 1");
    place
        .picie(&format!("train --recipe demo --data {data} --run run {tiny} --no-exif"))
        .succeeds();
    for (checkpoint, size) in [
        (place.join("run/epoch-01.safetensors"), (96, 64)),
        (trained().join("epoch-01.safetensors"), (64, 96)),
    ] {
        let words = format!("segment --checkpoint {} --out out phone.jpg", checkpoint.display());
        place.picie(&words).succeeds();
        let labels = image::image_dimensions(place.join("out/phone-labels.png")).unwrap();
        assert_eq!(labels, size, "{checkpoint:?}");
    }
}

/// A photo whose outputs cannot be named is left out, and the others are done.
#[test]
fn a_name_that_is_too_long_leaves_out_its_photo_alone() {
    let place = Place::new();
    let long = format!("{}.png", "x".repeat(248));
    for name in ["a.png", &long, "z.png"] {
        photo(40, 40).save(place.join(name)).unwrap();
    }
    let checkpoint = trained().join("epoch-02.safetensors");
    let words =
        format!("segment --checkpoint {} --out out a.png {long} z.png", checkpoint.display());
    let ran = place.picie(&words);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    let said =
        ["-labels.png: file name too long; use a shorter name", "1 of 3 photos were left out"];
    holds(&ran.err, &said);
    assert_eq!(files(&place.join("out")).len(), 6);
}

/// A network that was trained on scaled pictures sees photos at that scale.
#[test]
fn a_network_of_scaled_pictures_segments_photos_of_any_size() {
    let place = Place::new();
    let data = scenes().display();
    let words =
        format!("train --data {data} --recipe iic --run run {TINY} --set information.shifts=2");
    place.picie(&words).succeeds();
    image::RgbImage::from_pixel(200, 300, image::Rgb([90, 120, 60]))
        .save(place.join("photo.png"))
        .unwrap();
    place.picie("segment --checkpoint run/checkpoint.safetensors --out out photo.png").succeeds();
    let labels = image::open(place.join("out/photo-labels.png")).unwrap();
    assert_eq!((labels.width(), labels.height()), (200, 300));
}

/// A phone stores the sensor's pixels and says how to turn them.
#[test]
fn photos_are_segmented_upright() {
    let place = Place::new();
    let mut jpeg = std::io::Cursor::new(Vec::new());
    photo(96, 64).write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
    let jpeg = jpeg.into_inner();
    // APP1 with one TIFF tag: orientation 6, to be turned by a quarter clockwise.
    let exif =
        b"\xFF\xE1\0\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    std::fs::write(place.join("phone.jpg"), [&jpeg[..2], exif, &jpeg[2..]].concat()).unwrap();
    std::fs::write(place.join("plain.jpg"), &jpeg).unwrap();
    image::open(place.join("plain.jpg"))
        .unwrap()
        .rotate90()
        .save(place.join("upright.png"))
        .unwrap();
    let words = format!(
        "segment --checkpoint {} --out out",
        trained().join("epoch-02.safetensors").display()
    );
    place.picie(&format!("{words} phone.jpg upright.png")).succeeds();
    for what in ["labels", "overlay"] {
        let read = |name: &str| image::open(place.join(format!("out/{name}-{what}.png"))).unwrap();
        let (got, want) = (read("phone"), read("upright"));
        assert_eq!((got.width(), got.height()), (64, 96));
        assert_eq!(got, want, "{what}");
    }
    place.picie(&format!("{words} --no-exif phone.jpg plain.jpg")).succeeds();
    let read = |name: &str| image::open(place.join(format!("out/{name}-labels.png"))).unwrap();
    assert_eq!(read("phone"), read("plain"));
}
