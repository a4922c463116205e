//! Views against torchvision's float ops, torch's interpolate and Pillow; then CUDA against the
//! CPU.

mod engines;

use picie::device::ops::view::{MEAN, STD};
use picie::device::ops::{
    Crop, KeptViews, Photo, ViewRender, ViewSobel, ViewSpec, plan_view, view_render, view_sobel,
};
use picie::device::{Act, Dtype, Engine, Slot};

use crate::util::{Golden, On, OpCase, Rig, below, close, golden};

/// Sizes of the images of the goldens: not a multiple of any vector width, and not square.
const SIZE: (usize, usize) = (15, 19);
const SQUARE: (usize, usize) = (26, 26);

/// Differences of single colours are a few roundings of numbers below 1; normalisation and the
/// comparison's scale leave them near 1e-6. The hue adds a division by the spread of the channels,
/// whose error the product with it undoes.
const TOL: f32 = 5e-6;

/// Views of images: sizes, and draws of each output.
#[derive(Clone)]
struct Views {
    images: Vec<u8>,
    stored: (usize, usize),
    size: (usize, usize),
    index: Vec<u32>,
    photo: Option<Vec<Photo>>,
    crops: Option<Vec<Crop>>,
    channels: usize,
    /// With the gradient.
    sobel: bool,
    /// The places at which views are kept.
    places: Option<Vec<u32>>,
}

impl Views {
    /// Whole images, as they are stored.
    fn new(images: &[u8], stored: (usize, usize), index: &[u32]) -> Self {
        let (images, index) = (images.to_vec(), index.to_vec());
        let (photo, crops, size) = (None, None, stored);
        Views { images, stored, size, index, photo, crops, channels: 4, sobel: false, places: None }
    }

    fn sized(self, size: (usize, usize)) -> Self {
        Views { size, ..self }
    }

    fn drawn(self, photo: &[Photo]) -> Self {
        Views { photo: Some(photo.to_vec()), ..self }
    }

    fn cropped(self, crops: &[Crop]) -> Self {
        Views { crops: Some(crops.to_vec()), ..self }
    }

    /// Kept at these places, in this order.
    fn kept(self, places: &[u32]) -> Self {
        Views { places: Some(places.to_vec()), ..self }
    }

    fn wide(self, sobel: bool) -> Self {
        Views { channels: 8, sobel, ..self }
    }

    fn spec(&self) -> ViewSpec {
        let ((sh, sw), (h, w)) = (self.stored, self.size);
        ViewSpec { n: self.index.len(), sh, sw, h, w, channels: self.channels }
    }

    fn case(&self) -> OpCase<'_> {
        OpCase::new(format!("view_render of {:?}", self.spec()), |rig| {
            let plan = plan_view(&mut *rig.dev, self.spec()).unwrap();
            let x = rig.act_output("x", self.spec().x_len());
            let row = self.size.0 * self.size.1 * 3;
            let kept = self.places.as_ref().map(|places| KeptViews {
                // A row more than there are views.
                pictures: rig.output("pictures", (places.len() + 1) * row),
                places: rig.input("places", places),
            });
            let a = ViewRender {
                x,
                kept,
                images: rig.input("images", &self.images),
                index: rig.input("index", &self.index),
                photo: self.photo.as_ref().map(|p| rig.input("photo", p)),
                crops: self.crops.as_ref().map(|c| rig.input("crops", c)),
            };
            let sobel = self.sobel;
            move |dev| {
                view_render(dev, &plan, a)?;
                if sobel { view_sobel(dev, &plan, ViewSobel { x }) } else { Ok(()) }
            }
        })
    }

    fn render(&self) -> Vec<f32> {
        self.case().cpu()["x"].clone()
    }
}

/// The goldens' images and draws.
struct Pictures(Golden);

impl Pictures {
    fn bytes(&self, name: &str) -> Vec<u8> {
        self.0[name].iter().map(|&v| v as u8).collect()
    }

    fn index(&self, name: &str) -> Vec<u32> {
        self.0[name].iter().map(|&v| v as u32).collect()
    }

    fn photos(&self, name: &str) -> Vec<Photo> {
        let read = |p: &[f32]| Photo {
            brightness: p[0],
            contrast: p[1],
            saturation: p[2],
            hue: p[3],
            sigma: p[4],
            grey: p[5] as u32,
            order: p[6] as u32,
        };
        self.0[name].chunks(7).map(read).collect()
    }

    fn crops(&self) -> Vec<Crop> {
        let read = |c: &[f32]| Crop {
            top: c[0] as u32,
            left: c[1] as u32,
            side: c[2] as u32,
            flip: c[3] as u32,
        };
        self.0["crops"].chunks(4).map(read).collect()
    }

    /// The images, by the index of this name.
    fn views(&self, index: &str) -> Views {
        Views::new(&self.bytes("images"), SIZE, &self.index(index))
    }
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
    let g = Pictures(golden("view"));
    let photo = g.photos("photo");
    let x = g.views("photo_index").drawn(&photo).render();
    let colours: Vec<f32> = x.as_chunks::<4>().0.iter().flat_map(|p| [p[0], p[1], p[2]]).collect();
    let per = SIZE.0 * SIZE.1 * 3;
    for (i, draw) in photo.iter().enumerate() {
        let part = i * per..(i + 1) * per;
        close(&format!("{draw:?}"), &colours[part.clone()], &g.0["photo_x"][part], TOL);
    }
    assert!(x.iter().skip(3).step_by(4).all(|&v| v == 0.0), "the fourth channel is zero");
}

#[test]
fn crops_and_flips_with_repeated_images_in_any_order() {
    let g = Pictures(golden("view"));
    let views = g.views("crops_index").cropped(&g.crops());
    close("crops", &views.clone().sized((11, 11)).render(), &g.0["crops_x"], TOL);
    let photo = g.photos("photo");
    let views = views.drawn(&photo[photo.len() - 5..]);
    close("all", &views.sized((10, 10)).render(), &g.0["views_x"], TOL);
}

#[test]
fn whole_images_are_resized_with_antialias() {
    let g = Pictures(golden("view"));
    let mut views = g.views("crops_index");
    views.index.truncate(2);
    close("down and up", &views.clone().sized((7, 27)).render(), &g.0["wide_x"], TOL);
    let photo = g.photos("photo");
    let views = views.drawn(&photo[photo.len() - 2..]);
    close("smaller", &views.sized((10, 10)).render(), &g.0["resized_x"], TOL);
    let half = Views::new(&g.bytes("square"), SQUARE, &[1]).sized((13, 13));
    close("half", &half.render(), &g.0["half_x"], TOL);
}

#[test]
fn eight_channels_are_the_colours_and_the_sobel_gradient() {
    let g = Pictures(golden("view"));
    let x = Views::new(&g.bytes("images"), SIZE, &[0, 1, 2]).wide(true).render();
    let gradient: Vec<f32> = x.as_chunks::<8>().0.iter().flat_map(|p| [p[3], p[4]]).collect();
    // Sums of eight greys that were normalised and back.
    close("sobel", &gradient, &g.0["sobel_x"], 2e-6);
    // Where a view has been cut and resized the colours are those of four channels, and the rest
    // zero until the gradient comes.
    let views = g.views("crops_index").cropped(&g.crops()).sized((11, 9));
    let (four, eight) = (views.render(), views.clone().wide(false).render());
    let with = views.wide(true).render();
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
    let x = Views::new(&image, (h, w), &[0]).wide(true).render();
    for (i, pixel) in x.as_chunks::<8>().0.iter().enumerate() {
        if (1..h - 1).contains(&(i / w)) && (1..w - 1).contains(&(i % w)) {
            close("slopes", &pixel[3..5], &[8.0 / 255.0, 24.0 / 255.0], 1e-4);
        }
    }
    // A single pixel has no neighbor but zeros.
    let x = Views::new(&[9, 99, 199], (1, 1), &[0]).wide(true).render();
    assert_eq!(x[3..], [0.0; 5]);
}

#[test]
fn at_its_own_size_an_image_is_only_normalised() {
    let (h, w) = (5, 37);
    let images: Vec<u8> = below(9, 2 * h * w * 3, 256).into_iter().map(|v| v as u8).collect();
    let want: Vec<f32> = images.iter().map(|&v| f32::from(v)).collect();
    let got = levels(&Views::new(&images, (h, w), &[1, 0]).render());
    let (first, second) = got.split_at(h * w * 3);
    // Three roundings of numbers below 255.
    assert!(distance(&[second, first].concat(), &want).0 <= 1e-4);
    for (on, side) in On::all().into_iter().flat_map(|on| [5, 32, 33].map(|side| (on, side))) {
        let image: Vec<u8> = below(9, side * side * 3, 256).into_iter().map(|v| v as u8).collect();
        let plain = Views::new(&image, (side, side), &[0; 4]);
        let neutral = plain.clone().drawn(&[Photo::NONE; 4]).cropped(&[Crop::whole(side); 4]);
        let [plain, neutral] = [plain, neutral].map(|v| v.case().run(on.rig())["x"].clone());
        assert_eq!(plain, neutral, "neutral draws change no bit");
    }
}

#[test]
fn pillow_is_near() {
    let g = Pictures(golden("view"));
    let (photo, square) = (g.photos("pil_photo"), g.bytes("square"));
    let views = Views::new(&square, SQUARE, &vec![1; photo.len()]).drawn(&photo);
    let x = levels(&views.render());
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
        let got = distance(&x[part.clone()], &g.0["pil_x"][part]);
        assert!(
            got.0 <= most && got.1 <= mean,
            "{:?}: {got:?} levels, not within {most}, {mean}",
            photo[i]
        );
    }
    // Rounded after each axis.
    let half = levels(&Views::new(&square, SQUARE, &[0, 1]).sized((13, 13)).render());
    let got = distance(&half, &g.0["pil_half"]);
    assert!(got.0 <= 1.01 && got.1 <= 0.5, "{got:?}");
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let g = Pictures(golden("view"));
    let photo = g.photos("photo");
    let views = g.views("crops_index").drawn(&photo[photo.len() - 5..]).cropped(&g.crops());
    views.sized((9, 11)).wide(true).case().same_bits_on_any_threads();
}

#[test]
fn a_wide_blur_of_a_small_image_stays_an_average() {
    let image = below(4, 7 * 5 * 3, 256).into_iter().map(|v| v as u8).collect::<Vec<_>>();
    let blur = [Photo { sigma: 1e6, ..Photo::NONE }];
    let got = levels(&Views::new(&image, (7, 5), &[0]).drawn(&blur).render());
    let mut edges = (255.0f32, 0.0f32);
    for &v in &image {
        edges = (edges.0.min(f32::from(v)), edges.1.max(f32::from(v)));
    }
    assert!(got.iter().all(|&v| edges.0 <= v && v <= edges.1), "{got:?}");
}

/// The gradient of colours that are there.
fn sobel(spec: ViewSpec, x: &[f32]) -> OpCase<'_> {
    OpCase::new(format!("view_sobel of {spec:?}"), move |rig| {
        let plan = plan_view(&mut *rig.dev, spec).unwrap();
        let x: Slot<Act> = rig.act_inout("x", x);
        move |dev: &mut dyn Engine| view_sobel(dev, &plan, ViewSobel { x })
    })
}

#[test]
fn wrong_sizes_are_refused() {
    let views = Views::new(&[0; 3 * 36], (3, 4), &[0, 2]).sized((2, 3));
    let drawn = views.clone().drawn(&[Photo::NONE; 2]).cropped(&[Crop::whole(3); 2]);
    // The store has whole images.
    drawn.case().refuses_other_sizes("view_render", &[("images", "images")]);
    let kept = views.clone().sized((2, 4)).kept(&[1, 0]);
    let any = [("images", "images"), ("pictures", "pictures")];
    kept.case().refuses_other_sizes("view_render", &any);
    let said = views.clone().kept(&[1, 0]).case().refusal(Rig::cpu(Dtype::F32)).to_string();
    assert!(said.starts_with("view_render: a row of a kept view has 3 elements"), "{said}");
    let spec = views.spec();
    let x = vec![0.0; 2 * spec.x_len()];
    sobel(ViewSpec { channels: 8, ..spec }, &x).refuses_other_sizes("view_sobel", &[]);
    let said = sobel(spec, &x[..spec.x_len()]).refusal(Rig::cpu(Dtype::F32)).to_string();
    assert!(said.starts_with("view_sobel: a pixel has 4 elements, the contract wants 8"), "{said}");
    for on in On::all() {
        let refused = |spec| plan_view(&mut *on.rig().dev, spec).err().map(|e| e.to_string());
        assert!(refused(ViewSpec { w: 0, ..spec }).is_some());
        assert!([3, 5].iter().all(|&channels| refused(ViewSpec { channels, ..spec }).is_some()));
        let large = refused(ViewSpec { sh: 4097, ..spec });
        assert!(on == On::Cpu || large.is_some_and(|said| said.contains("4096²")));
    }
}
