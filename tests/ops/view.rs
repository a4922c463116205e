//! Views against torchvision's float ops, torch's interpolate and Pillow.

use std::collections::BTreeMap;

use picie::device::ops::view::{MEAN, STD};
use picie::device::ops::{Crop, Photo, View, ViewSpec};

use crate::util::{Rig, below, close, golden};

/// Sizes of the images of the goldens: not a multiple of any vector width, and not square.
const SIZE: (usize, usize) = (15, 19);
const SQUARE: (usize, usize) = (26, 26);

/// Differences of single colours are a few roundings of numbers below 1; normalisation and the
/// comparison's scale leave them near 1e-6. The hue adds a division by the spread of the channels,
/// whose error the product with it undoes.
const TOL: f32 = 5e-6;

type Golden = BTreeMap<String, Vec<f32>>;

fn bytes(g: &Golden, name: &str) -> Vec<u8> {
    g[name].iter().map(|&v| v as u8).collect()
}

fn index(g: &Golden, name: &str) -> Vec<u32> {
    g[name].iter().map(|&v| v as u32).collect()
}

fn photos(g: &Golden, name: &str) -> Vec<Photo> {
    let read = |p: &[f32]| Photo {
        brightness: p[0],
        contrast: p[1],
        saturation: p[2],
        hue: p[3],
        sigma: p[4],
        grey: p[5] as u32,
        order: p[6] as u32,
    };
    g[name].chunks(7).map(read).collect()
}

fn crops(g: &Golden) -> Vec<Crop> {
    let read = |c: &[f32]| Crop {
        top: c[0] as u32,
        left: c[1] as u32,
        side: c[2] as u32,
        flip: c[3] as u32,
    };
    g["crops"].chunks(4).map(read).collect()
}

fn render(
    images: &[u8],
    (sh, sw): (usize, usize),
    index: &[u32],
    photo: Option<&[Photo]>,
    crops: Option<&[Crop]>,
    (h, w): (usize, usize),
) -> Vec<f32> {
    wider(images, (sh, sw), index, photo, crops, (h, w, 4), false)
}

/// Of 4 or 8 channels, with or without the gradient.
fn wider(
    images: &[u8],
    (sh, sw): (usize, usize),
    index: &[u32],
    photo: Option<&[Photo]>,
    crops: Option<&[Crop]>,
    (h, w, channels): (usize, usize, usize),
    sobel: bool,
) -> Vec<f32> {
    let spec = ViewSpec { n: index.len(), sh, sw, h, w, channels };
    let mut rig = Rig::new();
    let plan = rig.dev.plan_view(spec).unwrap();
    let (images, index) = (rig.input(images), rig.input(index));
    let (photo, crops) = (photo.map(|p| rig.input(p)), crops.map(|c| rig.input(c)));
    let x = rig.output::<f32>(spec.x_len());
    rig.ready();
    rig.dev.view_render(&plan, x, images, index, photo, crops).unwrap();
    if sobel {
        rig.dev.view_sobel(&plan, x).unwrap();
    }
    rig.read(x)
}

/// The colours of x as 8-bit levels, not rounded.
fn levels(x: &[f32]) -> Vec<f32> {
    let pixels = x.as_chunks::<4>().0;
    pixels.iter().flat_map(|p| (0..3).map(|c| (p[c] * STD[c] + MEAN[c]) * 255.0)).collect()
}

/// Largest and mean distance in levels.
fn distance(got: &[f32], want: &[f32]) -> (f32, f32) {
    assert_eq!(got.len(), want.len());
    let sum: f32 = got.iter().zip(want).map(|(g, w)| (g - w).abs()).sum();
    let most = got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, f32::max);
    (most, sum / got.len() as f32)
}

#[test]
fn each_photometric_step_alone_and_all_in_several_orders() {
    let g = golden("view");
    let (photo, index) = (photos(&g, "photo"), index(&g, "photo_index"));
    let x = render(&bytes(&g, "images"), SIZE, &index, Some(&photo), None, SIZE);
    let colours: Vec<f32> = x.as_chunks::<4>().0.iter().flat_map(|p| [p[0], p[1], p[2]]).collect();
    let per = SIZE.0 * SIZE.1 * 3;
    for (i, draw) in photo.iter().enumerate() {
        let part = i * per..(i + 1) * per;
        close(&format!("{draw:?}"), &colours[part.clone()], &g["photo_x"][part], TOL);
    }
    assert!(x.iter().skip(3).step_by(4).all(|&v| v == 0.0), "the fourth channel is zero");
}

#[test]
fn crops_and_flips_with_repeated_images_in_any_order() {
    let g = golden("view");
    let (images, index, crops) = (bytes(&g, "images"), index(&g, "crops_index"), crops(&g));
    close(
        "crops",
        &render(&images, SIZE, &index, None, Some(&crops), (11, 11)),
        &g["crops_x"],
        TOL,
    );
    let photo = photos(&g, "photo");
    let photo = &photo[photo.len() - 5..];
    close(
        "all",
        &render(&images, SIZE, &index, Some(photo), Some(&crops), (10, 10)),
        &g["views_x"],
        TOL,
    );
}

#[test]
fn whole_images_are_resized_with_antialias() {
    let g = golden("view");
    let (images, index, photo) =
        (bytes(&g, "images"), index(&g, "crops_index"), photos(&g, "photo"));
    let photo = &photo[photo.len() - 2..];
    close(
        "smaller",
        &render(&images, SIZE, &index[..2], Some(photo), None, (10, 10)),
        &g["resized_x"],
        TOL,
    );
    close(
        "down and up",
        &render(&images, SIZE, &index[..2], None, None, (7, 27)),
        &g["wide_x"],
        TOL,
    );
    close(
        "half",
        &render(&bytes(&g, "square"), SQUARE, &[1], None, None, (13, 13)),
        &g["half_x"],
        TOL,
    );
}

#[test]
fn eight_channels_are_the_colours_and_the_sobel_gradient() {
    let g = golden("view");
    let (images, (h, w)) = (bytes(&g, "images"), SIZE);
    let x = wider(&images, SIZE, &[0, 1, 2], None, None, (h, w, 8), true);
    let gradient: Vec<f32> = x.as_chunks::<8>().0.iter().flat_map(|p| [p[3], p[4]]).collect();
    // Sums of eight greys that were normalised and back.
    close("sobel", &gradient, &g["sobel_x"], 2e-6);
    // Where a view has been cut and resized the colours are those of four channels, and the rest
    // zero until the gradient comes.
    let (index, crops) = (index(&g, "crops_index"), crops(&g));
    let four = render(&images, SIZE, &index, None, Some(&crops), (11, 9));
    let eight = wider(&images, SIZE, &index, None, Some(&crops), (11, 9, 8), false);
    let with = wider(&images, SIZE, &index, None, Some(&crops), (11, 9, 8), true);
    for ((four, eight), with) in
        four.as_chunks::<4>().0.iter().zip(eight.as_chunks::<8>().0).zip(with.as_chunks::<8>().0)
    {
        assert_eq!((&eight[..4], &eight[4..]), (&four[..], &[0.0; 4][..]));
        assert_eq!((&with[..3], &with[5..]), (&four[..3], &[0.0; 3][..]));
    }
}

/// A grey that falls by 1/255 a column and 3/255 a row has the same gradient everywhere inside,
/// with its sign.
#[test]
fn the_sobel_gradient_is_positive_where_the_grey_falls() {
    let (h, w) = (4, 5);
    let image: Vec<u8> = (0..h * w).flat_map(|i| [(200 - i % w - 3 * (i / w)) as u8; 3]).collect();
    let x = wider(&image, (h, w), &[0], None, None, (h, w, 8), true);
    for (i, pixel) in x.as_chunks::<8>().0.iter().enumerate() {
        if (1..h - 1).contains(&(i / w)) && (1..w - 1).contains(&(i % w)) {
            close("slopes", &pixel[3..5], &[8.0 / 255.0, 24.0 / 255.0], 1e-4);
        }
    }
    // A single pixel has no neighbour but zeros.
    let x = wider(&[9, 99, 199], (1, 1), &[0], None, None, (1, 1, 8), true);
    assert_eq!(x[3..], [0.0; 5]);
}

#[test]
fn at_its_own_size_an_image_is_only_normalised() {
    let (h, w) = (5, 37);
    let images: Vec<u8> = below(9, 2 * h * w * 3, 256).into_iter().map(|v| v as u8).collect();
    let want: Vec<f32> = images.iter().map(|&v| f32::from(v)).collect();
    let got = levels(&render(&images, (h, w), &[1, 0], None, None, (h, w)));
    let (first, second) = got.split_at(h * w * 3);
    // Three roundings of numbers below 255.
    assert!(distance(&[second, first].concat(), &want).0 <= 1e-4);
    let square = &images[..5 * 5 * 3];
    let plain = render(square, (5, 5), &[0], None, None, (5, 5));
    let drawn = render(square, (5, 5), &[0], Some(&[Photo::NONE]), Some(&[Crop::whole(5)]), (5, 5));
    assert_eq!(plain, drawn, "neutral draws change no bit");
}

#[test]
fn pillow_is_near() {
    let g = golden("view");
    let (photo, square) = (photos(&g, "pil_photo"), bytes(&g, "square"));
    let x = levels(&render(&square, SQUARE, &vec![1; photo.len()], Some(&photo), None, SQUARE));
    // (largest, mean) in levels. Pillow truncates or rounds to 8 bits after every step: one level
    // for brightness and saturation, and one more for contrast, whose mean is rounded too. Its HSV
    // has 256 hues and saturations, and the shift is rounded to one of them as well: 6/256 of a
    // saturated channel's range each. Its blur is three box filters, 3 levels from the Gaussian in
    // the picture and a dozen at a single black pixel beside a white one.
    let near =
        [(1.0, 0.6), (1.5, 0.6), (1.5, 0.6), (13.0, 1.5), (12.0, 1.0), (10.0, 0.8), (8.0, 2.5)];
    let per = SQUARE.0 * SQUARE.1 * 3;
    assert_eq!(photo.len(), near.len());
    for (i, (most, mean)) in near.into_iter().enumerate() {
        let part = i * per..(i + 1) * per;
        let got = distance(&x[part.clone()], &g["pil_x"][part]);
        assert!(
            got.0 <= most && got.1 <= mean,
            "{:?}: {got:?} levels, not within {most}, {mean}",
            photo[i]
        );
    }
    // Rounded after each axis.
    let half = levels(&render(&square, SQUARE, &[0, 1], None, None, (13, 13)));
    let got = distance(&half, &g["pil_half"]);
    assert!(got.0 <= 1.01 && got.1 <= 0.5, "{got:?}");
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let g = golden("view");
    let (images, index, crops, photo) =
        (bytes(&g, "images"), index(&g, "crops_index"), crops(&g), photos(&g, "photo"));
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let draws = (Some(&photo[photo.len() - 5..]), Some(crops.as_slice()));
        pool.install(|| wider(&images, SIZE, &index, draws.0, draws.1, (9, 11, 8), true))
    };
    let one = with(1);
    assert!(with(2) == one && with(5) == one && with(7) == one);
}

#[test]
fn a_wide_blur_of_a_small_image_stays_an_average() {
    let image = below(4, 7 * 5 * 3, 256).into_iter().map(|v| v as u8).collect::<Vec<_>>();
    let photo = [Photo { sigma: 1e6, ..Photo::NONE }];
    let got = levels(&render(&image, (7, 5), &[0], Some(&photo), None, (7, 5)));
    let mut edges = (255.0f32, 0.0f32);
    for &v in &image {
        edges = (edges.0.min(f32::from(v)), edges.1.max(f32::from(v)));
    }
    assert!(got.iter().all(|&v| edges.0 <= v && v <= edges.1), "{got:?}");
}

#[test]
fn wrong_sizes_are_refused() {
    let spec = ViewSpec { n: 2, sh: 3, sw: 4, h: 2, w: 5, channels: 4 };
    let mut rig = Rig::new();
    let plan = rig.dev.plan_view(spec).unwrap();
    assert!(rig.dev.plan_view(ViewSpec { w: 0, ..spec }).is_err());
    assert!(rig.dev.plan_view(ViewSpec { channels: 5, ..spec }).is_err());
    let eight = rig.dev.plan_view(ViewSpec { channels: 8, ..spec }).unwrap();
    let x = rig.output::<f32>(spec.x_len());
    let (images, part) = (rig.input(&[0u8; 3 * 36]), rig.input(&[0u8; 35]));
    let (index, short) = (rig.input(&[0u32, 2]), rig.input(&[0u32]));
    let photo = rig.input(&[Photo::NONE]);
    let crop = rig.input(&[Crop::whole(3); 3]);
    rig.ready();
    let fails = |r: picie::base::Result<()>, what: &str| {
        assert!(r.unwrap_err().to_string().starts_with(what))
    };
    rig.dev.view_render(&plan, x, images, index, None, None).unwrap();
    fails(rig.dev.view_render(&plan, x, part, index, None, None), "view: images has 35");
    fails(rig.dev.view_render(&plan, x, images, short, None, None), "view: index has 1");
    fails(rig.dev.view_render(&plan, x, images, index, Some(photo), None), "view: photo has 1");
    fails(rig.dev.view_render(&plan, x, images, index, None, Some(crop)), "view: crops has 3");
    fails(rig.dev.view_sobel(&eight, x), "view_sobel: x has 80");
    fails(rig.dev.view_sobel(&plan, x), "view_sobel: a pixel has 4 elements, the contract wants 8");
}
