use half::{bf16, f16};
use picie::device::ops::{Crop, Photo, View, ViewSpec};
use picie::device::{Activation, Slot};

use crate::util::{Rig, below, close, round, signed};

/// Of the largest value. f32: the engines round differently on the way: fused multiplications, sums
/// in other orders, columns before rows. Narrower types: the stored pixel is rounded.
fn tolerance<A: Activation>() -> f32 {
    match A::NAME {
        "f32" => 1e-5,
        "bf16" => 1.0 / 256.0,
        _ => 1.0 / 2048.0,
    }
}

/// One call of the op: sizes, and draws of each output.
#[derive(Clone)]
struct Case {
    stored: (usize, usize),
    size: (usize, usize),
    index: Vec<u32>,
    photo: Option<Vec<Photo>>,
    crops: Option<Vec<Crop>>,
    channels: usize,
}

impl Case {
    /// Whole images: three of them, permuted and with a repeat.
    fn whole(stored: (usize, usize), size: (usize, usize)) -> Self {
        Case { stored, size, index: vec![2, 0, 2, 1], photo: None, crops: None, channels: 4 }
    }

    /// Image 1 at its own size, once for each draw.
    fn drawn(stored: (usize, usize), photo: Vec<Photo>) -> Self {
        Case { index: vec![1; photo.len()], photo: Some(photo), ..Case::whole(stored, stored) }
    }

    fn images(&self) -> Vec<u8> {
        let mut images: Vec<u8> = below(7, 3 * self.stored.0 * self.stored.1 * 3, 256)
            .into_iter()
            .map(|v| v as u8)
            .collect();
        // Greys and saturated colours: corners of the hue circle.
        for (pixel, v) in images.as_chunks_mut::<3>().0.iter_mut().step_by(5).zip([
            [0; 3],
            [255; 3],
            [255, 0, 0],
            [9; 3],
        ]) {
            *pixel = v;
        }
        images
    }

    fn render<B: View>(&self, mut rig: Rig<B>) -> Vec<f32> {
        let ((sh, sw), (h, w)) = (self.stored, self.size);
        let spec = ViewSpec { n: self.index.len(), sh, sw, h, w, channels: self.channels };
        let plan = rig.dev.plan_view(spec).unwrap();
        let (images, index) = (rig.input(&self.images()), rig.input(&self.index));
        let photo: Option<Slot<Photo>> = self.photo.as_ref().map(|p| rig.input(p));
        let crops: Option<Slot<Crop>> = self.crops.as_ref().map(|c| rig.input(c));
        let x = rig.act_output(spec.x_len());
        rig.ready();
        rig.dev.view_render(&plan, x, images, index, photo, crops).unwrap();
        rig.read_act(x)
    }

    /// The GPU's pixels are the CPU's, image by image.
    fn agree<A: Activation>(&self, name: &str) {
        let Some(rig) = Rig::cuda::<A>() else { return };
        let (got, want) = (self.render(rig), self.render(Rig::new()));
        let rest = got.chunks(self.channels).flat_map(|pixel| &pixel[3..]);
        assert!(rest.into_iter().all(|&v| v == 0.0), "{name}: all channels but three are zero");
        let per = self.size.0 * self.size.1 * self.channels;
        for (i, (got, want)) in got.chunks(per).zip(want.chunks(per)).enumerate() {
            let draw = (self.photo.as_ref().map(|p| p[i]), self.crops.as_ref().map(|c| c[i]));
            close(
                &format!("{name} in {}, image {i}, {draw:?}", A::NAME),
                got,
                want,
                tolerance::<A>(),
            );
        }
        assert_eq!(got.len(), self.index.len() * per);
    }

    fn agree_in_all(&self, name: &str) {
        self.agree::<f32>(name);
        self.agree::<bf16>(name);
        self.agree::<f16>(name);
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
    let draws = vec![
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
    Case::drawn((19, 37), draws.clone()).agree_in_all("odd");
    Case::drawn((12, 34), draws).agree_in_all("words");
}

#[test]
fn all_steps_in_every_order() {
    let orders = orders();
    assert_eq!(orders.len(), 24);
    let draws: Vec<Photo> = orders
        .iter()
        .enumerate()
        .map(|(i, &order)| Photo { order, grey: u32::from(i % 5 == 0), ..STRONG })
        .collect();
    Case::drawn((21, 33), draws.clone()).agree::<f32>("orders");
    Case::drawn((21, 33), draws).agree::<bf16>("orders");
}

#[test]
fn the_mean_grey_is_of_the_whole_image_for_any_crop() {
    // More pixels than the 32 blocks of an image take at once.
    let photo = vec![
        Photo { contrast: 0.3, order: 0b01_11_10_00, ..STRONG },
        Photo { contrast: 1.7, ..NONE },
    ];
    let crops = vec![crop(100, 0, 20, 0), crop(0, 180, 16, 1)];
    let case = Case {
        index: vec![0, 2],
        photo: Some(photo),
        crops: Some(crops),
        ..Case::whole((181, 197), (9, 11))
    };
    case.agree::<f32>("mean");
}

#[test]
fn small_and_large_blurs_and_none_in_one_batch() {
    let sigmas = [0.0, 0.1, 0.34, 1.0, 2.0, 0.0, 4.9, 5.1, 12.0, 1e6, f32::INFINITY, f32::NAN];
    let draws: Vec<Photo> = sigmas.iter().map(|&sigma| Photo { sigma, ..STRONG }).collect();
    // Wider than a line of 96 columns, higher than 48 rows: walked through in pieces.
    Case::drawn((71, 130), draws.clone()).agree::<f32>("blur");
    // Smaller than a blur's radius, and than a tile.
    Case::drawn((9, 5), draws.clone()).agree::<f32>("wide blur");
    Case::drawn((1, 6), draws.clone()).agree::<f32>("a row");
    Case::drawn((1, 1), draws.clone()).agree::<f32>("a pixel");
    Case::drawn((33, 40), draws[..6].to_vec()).agree_in_all("blur");
}

#[test]
fn crops_and_flips_with_and_without_blur() {
    let crops = vec![
        crop(0, 0, 40, 0),
        crop(0, 5, 40, 1),
        crop(13, 20, 21, 0),
        crop(9, 14, 31, 1),
        crop(39, 44, 1, 1),
        crop(0, 0, 2, 0),
        crop(3, 7, 33, 1),
    ];
    let index = vec![1, 1, 0, 2, 0, 2, 1];
    let sigmas = [0.0, 1.2, 2.0, 0.0, 0.7, 3.0, 20.0];
    let photo = sigmas.iter().map(|&sigma| Photo { sigma, ..STRONG }).collect();
    let plain = Case { index, crops: Some(crops), ..Case::whole((40, 45), (33, 35)) };
    let drawn = Case { photo: Some(photo), ..plain.clone() };
    plain.agree_in_all("crops");
    drawn.agree_in_all("drawn crops");
    // Up, and down without antialias: pixels between the taps are not read.
    for size in [(70, 64), (7, 5), (1, 1), (40, 40)] {
        Case { size, ..plain.clone() }.agree::<f32>("crops");
        Case { size, ..drawn.clone() }.agree::<f32>("drawn crops");
    }
}

#[test]
fn whole_images_are_resized_with_antialias() {
    let photo = vec![NONE, Photo { sigma: 1.5, ..STRONG }, Photo { sigma: 9.0, ..NONE }, STRONG];
    for (stored, size) in [
        ((64, 64), (32, 32)),
        ((66, 130), (33, 31)),
        ((31, 47), (64, 65)),
        ((50, 9), (13, 27)),
        ((97, 101), (2, 1)),
        ((1, 3), (5, 2)),
    ] {
        let plain = Case::whole(stored, size);
        plain.agree::<f32>("resize");
        Case { photo: Some(photo.clone()), ..plain }.agree::<f32>("drawn resize");
    }
    Case { photo: Some(photo), ..Case::whole((48, 66), (24, 33)) }.agree_in_all("halves");
}

#[test]
fn at_its_own_size_an_image_is_only_normalised() {
    for stored in [(1, 1), (31, 33), (32, 32), (33, 65)] {
        Case::whole(stored, stored).agree_in_all("identity");
    }
    let Some(rig) = Rig::cuda::<f32>() else { return };
    let plain = Case::whole((33, 33), (33, 33));
    let neutral =
        Case { photo: Some(vec![NONE; 4]), crops: Some(vec![Crop::whole(33); 4]), ..plain.clone() };
    let again = Rig::cuda::<f32>().unwrap();
    assert_eq!(plain.render(rig), neutral.render(again), "neutral draws change no bit");
}

#[test]
fn eight_channels_are_rendered() {
    let crops = vec![crop(0, 0, 40, 0), crop(13, 20, 21, 1)];
    let case = Case {
        index: vec![1, 0],
        crops: Some(crops),
        channels: 8,
        ..Case::whole((40, 45), (33, 35))
    };
    case.agree_in_all("eight channels");
}

/// The gradient of colours that both engines hold alike; other channels stay.
#[test]
fn the_sobel_gradient_is_the_cpus() {
    fn run<B: View>(mut rig: Rig<B>, (n, h, w): (usize, usize, usize), x: &[f32]) -> Vec<f32> {
        let plan = rig.dev.plan_view(ViewSpec { n, sh: h, sw: w, h, w, channels: 8 }).unwrap();
        let x = rig.act(x);
        rig.ready();
        rig.dev.view_sobel(&plan, x).unwrap();
        rig.read_act(x)
    }
    fn case<A: Activation>(size: (usize, usize, usize)) {
        let Some(rig) = Rig::cuda::<A>() else { return };
        let x = round::<A>(&signed(5, size.0 * size.1 * size.2 * 8));
        let (got, want) = (run(rig, size, &x), run(Rig::new(), size, &x));
        close(&format!("sobel {size:?} in {}", A::NAME), &got, &want, tolerance::<A>());
        for (got, x) in got.as_chunks::<8>().0.iter().zip(x.as_chunks::<8>().0) {
            assert_eq!((&got[..3], &got[5..]), (&x[..3], &x[5..]));
        }
    }
    // Around a block of 8 rows and 32 columns.
    for size in [(1, 1, 1), (2, 7, 31), (3, 8, 32), (2, 9, 33), (1, 17, 70), (2, 3, 2)] {
        case::<f32>(size);
        case::<bf16>(size);
        case::<f16>(size);
    }
}

#[test]
fn plans_of_several_sizes_live_together() {
    let Some(mut rig) = Rig::cuda::<f32>() else { return };
    let big =
        rig.dev.plan_view(ViewSpec { n: 1, sh: 2, sw: 4000, h: 2, w: 3, channels: 4 }).unwrap();
    rig.dev.plan_view(ViewSpec { n: 2, sh: 3, sw: 3, h: 3, w: 3, channels: 4 }).unwrap();
    let (images, index) = (rig.input(&[255u8; 24_000]), rig.input(&[0u32]));
    let photo = rig.input(&[Photo { sigma: 1e9, ..NONE }]);
    let x = rig.act_output(2 * 3 * 4);
    rig.ready();
    rig.dev.view_render(&big, x, images, index, Some(photo), None).unwrap();
    // White, whatever is averaged.
    let white = [(1.0 - 0.485) / 0.229, (1.0 - 0.456) / 0.224, (1.0 - 0.406) / 0.225, 0.0];
    close("white", &rig.read_act(x), &white.repeat(6), 1e-4);
}

#[test]
fn wrong_sizes_are_refused() {
    let spec = ViewSpec { n: 2, sh: 3, sw: 4, h: 2, w: 5, channels: 4 };
    let Some(mut rig) = Rig::cuda::<f32>() else { return };
    let plan = rig.dev.plan_view(spec).unwrap();
    assert!(rig.dev.plan_view(ViewSpec { w: 0, ..spec }).is_err());
    assert!(rig.dev.plan_view(ViewSpec { channels: 3, ..spec }).is_err());
    let large = rig.dev.plan_view(ViewSpec { sh: 4097, ..spec }).unwrap_err().to_string();
    assert!(large.contains("4096²"), "{large}");
    let x = rig.act_output(spec.x_len());
    let (images, part) = (rig.input(&[0u8; 3 * 36]), rig.input(&[0u8; 35]));
    let (index, short) = (rig.input(&[0u32, 2]), rig.input(&[0u32]));
    let (photo, crop) = (rig.input(&[NONE]), rig.input(&[Crop::whole(3); 3]));
    rig.ready();
    let fails = |r: picie::base::Result<()>, what: &str| {
        assert!(r.unwrap_err().to_string().starts_with(what))
    };
    rig.dev.view_render(&plan, x, images, index, None, None).unwrap();
    fails(rig.dev.view_render(&plan, x, part, index, None, None), "view: images has 35");
    fails(rig.dev.view_render(&plan, x, images, short, None, None), "view: index has 1");
    fails(rig.dev.view_render(&plan, x, images, index, Some(photo), None), "view: photo has 1");
    fails(rig.dev.view_render(&plan, x, images, index, None, Some(crop)), "view: crops has 3");
    fails(rig.dev.view_sobel(&plan, x), "view_sobel: a pixel has 4");
}
