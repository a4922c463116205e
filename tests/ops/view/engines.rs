//! CUDA against the CPU, image by image.

use super::*;
use crate::util::{rounding, signed};

/// Of the largest value. f32: the engines round differently on the way: fused multiplications, sums
/// in other orders, columns before rows. Narrower types: the stored number is rounded.
fn tolerance(dtype: Dtype) -> f32 {
    rounding(dtype).max(1e-5)
}

/// A little more than half of a level in x.
const HALF_LEVEL: f32 = 0.505 / 255.0 / STD[1];

const F32: &[Dtype] = &[Dtype::F32];

impl Views {
    /// Three whole images, permuted and with a repeat.
    fn random(stored: (usize, usize)) -> Self {
        let mut images: Vec<u8> =
            below(7, 3 * stored.0 * stored.1 * 3, 256).into_iter().map(|v| v as u8).collect();
        // Greys and saturated colours: corners of the hue circle.
        for (pixel, v) in images.as_chunks_mut::<3>().0.iter_mut().step_by(5).zip([
            [0; 3],
            [255; 3],
            [255, 0, 0],
            [9; 3],
        ]) {
            *pixel = v;
        }
        Views::new(&images, stored, &[2, 0, 2, 1])
    }

    /// Image 1, once for each draw.
    fn each(stored: (usize, usize), photo: &[Photo]) -> Self {
        Views { index: vec![1; photo.len()], ..Views::random(stored) }.drawn(photo)
    }

    fn agree(&self, dtypes: &[Dtype]) {
        for &dtype in dtypes {
            let Some([got, want]) = self.case().both(dtype) else { return };
            let rest = got["x"].chunks(self.channels).flat_map(|pixel| &pixel[3..]);
            assert!(rest.into_iter().all(|&v| v == 0.0), "all channels but three are zero");
            let per = self.size.0 * self.size.1 * self.channels;
            assert_eq!(got["x"].len(), self.index.len() * per);
            let images = got["x"].chunks(per).zip(want["x"].chunks(per));
            for (i, (image, want)) in images.enumerate() {
                let draw = (self.photo.as_ref().map(|p| p[i]), self.crops.as_ref().map(|c| c[i]));
                let name = format!("{}, image {i}, {draw:?}", got.case());
                let largest = want.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
                // Narrow types have the colours in 8 bits.
                let level = if dtype == Dtype::F32 { 0.0 } else { HALF_LEVEL / largest };
                close(&name, image, want, tolerance(dtype) + level);
            }
        }
    }
}

const NONE: Photo = Photo::NONE;
const STRONG: Photo = Photo {
    brightness: 1.4,
    contrast: 0.6,
    saturation: 1.5,
    hue: -0.3,
    sigma: 0.0,
    grey: 0,
    order: Photo::FIXED_ORDER,
};

fn crop(top: u32, left: u32, side: u32, flip: u32) -> Crop {
    Crop { top, left, side, flip }
}

/// Every permutation of the four steps.
fn orders() -> Vec<u32> {
    let all = (0..256u32)
        .filter(|order| (0..4).all(|step| (0..4).any(|field| order >> (2 * field) & 3 == step)));
    all.collect()
}

#[test]
fn each_photometric_step_alone() {
    let draws = [
        NONE,
        Photo { brightness: 0.5, ..NONE },
        Photo { brightness: 3.0, ..NONE },
        Photo { contrast: 0.2, ..NONE },
        Photo { contrast: 2.5, ..NONE },
        Photo { saturation: 0.0, ..NONE },
        Photo { saturation: 2.0, ..NONE },
        Photo { hue: 0.5, ..NONE },
        Photo { hue: -0.5, ..NONE },
        Photo { hue: 0.07, ..NONE },
        Photo { grey: 1, ..NONE },
    ];
    // An odd number of pixels, so that images do not begin on words, and a multiple of four.
    Views::each((19, 37), &draws).agree(&Dtype::ALL);
    Views::each((12, 34), &draws).agree(&Dtype::ALL);
}

#[test]
fn all_steps_in_every_order() {
    let orders = orders();
    assert_eq!(orders.len(), 24);
    let draw = |(i, order): (usize, u32)| Photo { order, grey: u32::from(i % 5 == 0), ..STRONG };
    let draws: Vec<Photo> = orders.into_iter().enumerate().map(draw).collect();
    Views::each((21, 33), &draws).agree(&[Dtype::F32, Dtype::Bf16]);
}

#[test]
fn the_mean_grey_is_of_the_whole_image_for_any_crop() {
    // More pixels than the 32 blocks of an image take at once.
    let photo =
        [Photo { contrast: 0.3, order: 0b01_11_10_00, ..STRONG }, Photo { contrast: 1.7, ..NONE }];
    let crops = [crop(100, 0, 20, 0), crop(0, 180, 16, 1)];
    let views = Views { index: vec![0, 2], ..Views::random((181, 197)) };
    views.drawn(&photo).cropped(&crops).sized((9, 11)).agree(F32);
}

#[test]
fn small_and_large_blurs_and_none_in_one_batch() {
    let sigmas = [0.0, 0.1, 0.34, 1.0, 2.0, 0.0, 4.9, 5.1, 12.0, 1e6, f32::INFINITY, f32::NAN];
    let draws = sigmas.map(|sigma| Photo { sigma, ..STRONG });
    // Wider than a block's 256 columns: walked through in pieces. Rows that more outputs read than
    // a thread sums at once: in passes.
    Views::each((71, 270), &draws).agree(F32);
    // Smaller than a blur's radius, and than a tile; a row; a pixel.
    for stored in [(9, 5), (1, 6), (1, 1)] {
        Views::each(stored, &draws).agree(F32);
    }
    Views::each((33, 40), &draws[..6]).agree(&Dtype::ALL);
}

#[test]
fn crops_and_flips_with_and_without_blur() {
    let crops = [
        crop(0, 0, 40, 0),
        crop(0, 5, 40, 1),
        crop(13, 20, 21, 0),
        crop(9, 14, 31, 1),
        crop(39, 44, 1, 1),
        crop(0, 0, 2, 0),
        crop(3, 7, 33, 1),
    ];
    let photo = [0.0, 1.2, 2.0, 0.0, 0.7, 3.0, 20.0].map(|sigma| Photo { sigma, ..STRONG });
    let index = vec![1, 1, 0, 2, 0, 2, 1];
    let plain = Views { index, ..Views::random((40, 45)) }.cropped(&crops);
    let drawn = plain.clone().drawn(&photo);
    plain.clone().sized((33, 35)).agree(&Dtype::ALL);
    drawn.clone().sized((33, 35)).agree(&Dtype::ALL);
    // Up, and down without antialias: pixels between the taps are not read.
    for size in [(70, 64), (7, 5), (1, 1), (40, 40)] {
        plain.clone().sized(size).agree(F32);
        drawn.clone().sized(size).agree(F32);
    }
}

#[test]
fn whole_images_are_resized_with_antialias() {
    let photo = [NONE, Photo { sigma: 1.5, ..STRONG }, Photo { sigma: 9.0, ..NONE }, STRONG];
    for (stored, size) in [
        ((64, 64), (32, 32)),
        ((66, 130), (33, 31)),
        ((31, 47), (64, 65)),
        ((50, 9), (13, 27)),
        ((97, 101), (2, 1)),
        // Strips, and a window wider than a block; rows of three blocks and of several tables.
        ((33, 700), (33, 70)),
        ((420, 9), (181, 8)),
        ((1, 3), (5, 2)),
    ] {
        let plain = Views::random(stored).sized(size);
        plain.agree(F32);
        plain.drawn(&photo).agree(F32);
    }
    Views::random((48, 66)).sized((24, 33)).drawn(&photo).agree(&Dtype::ALL);
}

#[test]
fn at_its_own_size_an_image_is_only_normalised() {
    for stored in [(1, 1), (31, 33), (32, 32), (33, 65)] {
        Views::random(stored).agree(&Dtype::ALL);
    }
}

#[test]
fn eight_channels_are_rendered() {
    let crops = [crop(0, 0, 40, 0), crop(13, 20, 21, 1)];
    let views = Views { index: vec![1, 0], ..Views::random((40, 45)) };
    views.cropped(&crops).sized((33, 35)).wide(false).agree(&Dtype::ALL);
}

/// The gradient of colours that both engines hold alike; other channels stay.
#[test]
fn the_sobel_gradient_is_the_cpus() {
    // Around a block of 8 rows and 32 columns.
    for (n, h, w) in [(1, 1, 1), (2, 7, 31), (3, 8, 32), (2, 9, 33), (1, 17, 70), (2, 3, 2)] {
        let spec = ViewSpec { n, sh: h, sw: w, h, w, channels: 8 };
        let x = signed(5, spec.x_len());
        for dtype in Dtype::ALL {
            let Some([got, _]) = sobel(spec, &x).agree(dtype, |_| tolerance(dtype)) else { return };
            for (got, x) in got["x"].as_chunks::<8>().0.iter().zip(x.as_chunks::<8>().0) {
                let x = x.map(|x| dtype.round(x));
                assert_eq!((&got[..3], &got[5..]), (&x[..3], &x[5..]));
            }
        }
    }
}

#[test]
fn plans_of_several_sizes_live_together() {
    let blur = Photo { sigma: 1e9, ..NONE };
    let big = Views::new(&[255; 24_000], (2, 4000), &[0]).sized((2, 3)).drawn(&[blur]);
    let small = Views::new(&[255; 27], (3, 3), &[0, 0]);
    let both = OpCase::sequence("two".into(), vec![big.case(), small.case()]);
    let Some(rig) = Rig::cuda(Dtype::F32) else { return };
    let got = both.run(rig);
    // White, whatever is averaged.
    let white = [(1.0 - 0.485) / 0.229, (1.0 - 0.456) / 0.224, (1.0 - 0.406) / 0.225, 0.0];
    close("white", &got["x#0"], &white.repeat(6), 1e-4);
    close("white", &got["x#1"], &white.repeat(18), 1e-4);
}

/// What is kept are the colours in 8 bits, each view at its place, and 16-bit activations hold no
/// other: read again they are the same bits.
#[test]
fn kept_views_are_what_was_rendered() {
    let photo = [0.0, 1.2, 0.0, 0.7].map(|sigma| Photo { sigma, ..STRONG });
    let crops = [crop(0, 0, 40, 0), crop(0, 5, 40, 1), crop(13, 20, 21, 0), crop(9, 14, 31, 1)];
    let places = [3, 0, 4, 1];
    let drawn = Views::random((40, 45)).drawn(&photo);
    // More than a strip and a chunk; a window wider than a block.
    let wide = Views::random((9, 700)).drawn(&photo).sized((33, 148));
    for views in [drawn.clone().cropped(&crops).sized((33, 36)), drawn.sized((84, 116)), wide] {
        let row = views.size.0 * views.size.1 * 3;
        let want: Vec<f32> = levels(&views.render());
        let rig = |dtype: Option<Dtype>| dtype.map_or(Some(Rig::cpu(Dtype::F32)), Rig::cuda);
        for dtype in [None].into_iter().chain(Dtype::ALL.map(Some)) {
            let Some(on) = rig(dtype) else { continue };
            let got = views.clone().kept(&places).case().run(on);
            let pictures: Vec<u8> = got.integers("pictures").iter().map(|&v| v as u8).collect();
            for (i, &place) in places.iter().enumerate() {
                let picture = &pictures[place as usize * row..][..row];
                for (&level, want) in picture.iter().zip(&want[i * row..]) {
                    // Half a level, and the roundings of two engines.
                    assert!((f32::from(level) - want).abs() <= 0.502, "{dtype:?}, view {i}");
                }
            }
            assert!(
                pictures[2 * row..3 * row].iter().all(|&v| v == 0xFF),
                "{dtype:?}: others stay"
            );
            if let Some(narrow) = dtype.filter(|&dtype| dtype != Dtype::F32) {
                let again = Views::new(&pictures, views.size, &places);
                let again = again.case().run(Rig::cuda(narrow).unwrap());
                assert_eq!(again["x"], got["x"], "{dtype:?}");
            }
        }
    }
}
