//! Random draws of the augmentation, as pure functions of (seed, epoch, image, view): there is
//! nothing to store and nothing to resume.

use serde::{Deserialize, Serialize};

use crate::base::rng::{Rng, Stream};
use crate::device::ops::{Crop, Photo};

/// The way in which the four steps of the colour jitter are switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Jitter {
    /// All four steps or none, in random order (torchvision's `ColorJitter` under `RandomApply`).
    Joint,
    /// Each step by itself, in the order brightness, contrast, saturation, hue.
    Independent,
}

/// Strengths and probabilities of the augmentation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Augment {
    pub jitter: Jitter,
    /// Probability of the whole jitter ([`Jitter::Joint`]), or of each of its steps.
    pub jitter_p: f32,
    /// Brightness is multiplied by a uniform draw from 1 ± this. Contrast and saturation likewise.
    pub brightness: f32,
    pub contrast: f32,
    pub saturation: f32,
    /// Hue is shifted by a uniform draw from ± this, in turns of the colour circle.
    pub hue: f32,
    /// Probability that an image loses its colours.
    pub grey_p: f32,
    /// Probability of a Gaussian blur.
    pub blur_p: f32,
    /// The blur's σ is the magnitude of a uniform draw between these two, in pixels of an image
    /// stored at [`Augment::BLUR_SIZE`].
    pub sigma: (f32, f32),
    /// The crop's side, as a fraction of the map's side, is a uniform draw between these two.
    pub crop: (f32, f32),
    /// Probability of a horizontal flip.
    pub flip_p: f32,
}

impl Augment {
    /// The stored size that `sigma` is stated for (released code, `coco_train_dataset.py:83`).
    pub const BLUR_SIZE: usize = 640;

    /// The augmentation that the supplement of the CVPR 2021 paper states.
    pub fn supplement() -> Self {
        Augment {
            jitter: Jitter::Joint, // supplement: one ColorJitter
            jitter_p: 0.8,         // supplement
            brightness: 0.3,       // supplement
            contrast: 0.3,         // supplement
            saturation: 0.3,       // supplement
            hue: 0.1,              // supplement
            grey_p: 0.2,           // supplement
            blur_p: 0.5,           // supplement
            sigma: (0.1, 2.0),     // supplement
            crop: (0.5, 1.0),      // custom_transforms.py:207-235, a ratio of sides
            flip_p: 0.5,           // custom_transforms.py:207-235
        }
    }

    /// The augmentation that the released code really does, mistakes included.
    pub fn released() -> Self {
        Augment {
            jitter: Jitter::Independent, // coco_train_dataset.py:118-125
            grey_p: 0.0,                 // never: 'grey' is asked for, 'gray' tested (utils.py:257)
            sigma: (-1.8, 0.1),          // its bounds are mixed up (custom_transforms.py:90-93)
            ..Augment::supplement()
        }
    }

    /// An augmentation that changes nothing.
    pub fn none() -> Self {
        Augment {
            jitter_p: 0.0,
            grey_p: 0.0,
            blur_p: 0.0,
            crop: (1.0, 1.0),
            flip_p: 0.0,
            ..Augment::supplement()
        }
    }

    /// Whether it may change colours or sharpness.
    pub fn photometric(&self) -> bool {
        self.jitter_p > 0.0 || self.grey_p > 0.0 || self.blur_p > 0.0
    }

    /// Whether it may crop or flip.
    pub fn geometric(&self) -> bool {
        self.crop != (1.0, 1.0) || self.flip_p > 0.0
    }

    /// The rows of the supplement's table 2, with names: no transform; each one alone and always
    /// on; all photometric ones, with their own probabilities; all geometric ones; all.
    pub fn rows(self) -> Vec<(&'static str, Augment)> {
        let none = Augment::none();
        let still = Augment {
            jitter_p: 1.0,
            brightness: 0.0,
            contrast: 0.0,
            saturation: 0.0,
            hue: 0.0,
            ..none
        };
        let photometric = Augment { crop: none.crop, flip_p: none.flip_p, ..self };
        let geometric = Augment { crop: self.crop, flip_p: self.flip_p, ..none };
        vec![
            ("none", none),
            ("brightness", Augment { brightness: self.brightness, ..still }),
            ("contrast", Augment { contrast: self.contrast, ..still }),
            ("saturation", Augment { saturation: self.saturation, ..still }),
            ("hue", Augment { hue: self.hue, ..still }),
            ("grey", Augment { grey_p: 1.0, ..none }),
            ("blur", Augment { blur_p: 1.0, sigma: self.sigma, ..none }),
            ("photometric", photometric),
            ("crop", Augment { crop: self.crop, ..none }),
            ("flip", Augment { flip_p: 1.0, ..none }),
            ("geometric", geometric),
            ("all", self),
        ]
    }

    /// The photometric draw for one view (0 or 1) of one image that is stored at `stored`² pixels.
    ///
    /// σ scales with the stored size: a blur of σ before shrinking from 640 to S pixels equals one
    /// of σ·S/640 after it, so a smaller store renders the same pictures. All numbers are drawn
    /// whether used or not, so that a changed probability moves no other draw.
    pub fn photo(
        &self,
        seed: u64,
        epoch: usize,
        image: usize,
        view: usize,
        stored: usize,
    ) -> Photo {
        let mut rng = Rng::new(seed, Stream::Photometric, epoch as u32, (2 * image + view) as u32);
        let mut steps = [0, 1, 2, 3];
        for i in (1..steps.len()).rev() {
            steps.swap(i, rng.below(i + 1));
        }
        let mut on = [(); 4].map(|()| rng.bernoulli(self.jitter_p));
        let mut order = Photo::FIXED_ORDER;
        if self.jitter == Jitter::Joint {
            on = [on[0]; 4];
            order = steps.iter().enumerate().map(|(i, step)| step << (2 * i)).sum();
        }
        let mut within = |strength: f32, on: bool, neutral: f32| {
            let v = rng.uniform(-strength, strength);
            if on { neutral + v } else { neutral }
        };
        let brightness = within(self.brightness, on[0], 1.0);
        let contrast = within(self.contrast, on[1], 1.0);
        let saturation = within(self.saturation, on[2], 1.0);
        let hue = within(self.hue, on[3], 0.0);
        let grey = u32::from(rng.bernoulli(self.grey_p));
        let blurred = rng.bernoulli(self.blur_p);
        let sigma =
            rng.uniform(self.sigma.0, self.sigma.1).abs() * stored as f32 / Self::BLUR_SIZE as f32;
        Photo {
            brightness,
            contrast,
            saturation,
            hue,
            sigma: if blurred { sigma } else { 0.0 },
            grey,
            order,
        }
    }

    /// The geometric draw of one image: the crop of view 1's input and of view 2's features.
    pub fn window(&self, seed: u64, epoch: usize, image: usize) -> Window {
        let mut rng = Rng::new(seed, Stream::Geometric, epoch as u32, image as u32);
        Window {
            ratio: rng.uniform(self.crop.0, self.crop.1),
            down: rng.unit(),
            right: rng.unit(),
            flip: rng.bernoulli(self.flip_p),
        }
    }
}

/// A crop and a flip, as fractions of a square map of any side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Side of the crop over side of the map.
    pub ratio: f32,
    /// The crop's position from top (0) to bottom (1) of the room that it leaves. `right`: likewise
    /// from left to right.
    pub down: f32,
    pub right: f32,
    pub flip: bool,
}

impl Window {
    /// The crop in a map of `side`² cells: s = ⌊ratio·S⌋ at (round((S − s)·down), round((S −
    /// s)·right)), halves to even (`custom_transforms.py:207-235`).
    ///
    /// NOTE: rounding depends on the map's side, so the crops of an image and of its features
    /// differ by less than a cell.
    pub fn crop(&self, side: usize) -> Crop {
        let cut = ((f64::from(self.ratio) * side as f64) as usize).clamp(1, side);
        let offset = |at: f32| (f64::from(at) * (side - cut) as f64).round_ties_even() as u32;
        Crop {
            top: offset(self.down),
            left: offset(self.right),
            side: cut as u32,
            flip: u32::from(self.flip),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: usize = 20_000;

    fn photos(a: Augment) -> Vec<Photo> {
        (0..N).map(|i| a.photo(5, 3, i, i % 2, 320)).collect()
    }

    /// Asserts that `what` occurs with probability `p`, within 4 standard errors.
    #[track_caller]
    fn occurs(what: &str, p: f64, hits: impl Iterator<Item = bool>) {
        let (mut n, mut k) = (0, 0);
        hits.for_each(|hit| {
            n += 1;
            k += usize::from(hit);
        });
        let (got, error) = (k as f64 / n as f64, (p * (1.0 - p) / n as f64).sqrt());
        assert!(n > 1000 && (got - p).abs() <= 4.0 * error, "{what}: {got} of {n}, not {p}");
    }

    /// Asserts that draws are uniform in lo..hi: their range, and mean and variance within 4
    /// standard errors, which are w/√(12n) and w²/√(180n) for n draws from a range of width w.
    #[track_caller]
    fn uniform(what: &str, lo: f64, hi: f64, draws: impl Iterator<Item = f32>) {
        let v: Vec<f64> = draws.map(f64::from).collect();
        let (n, w) = (v.len() as f64, hi - lo);
        assert!(
            n > 1000.0 && v.iter().all(|&x| lo - 1e-6 <= x && x <= hi + 1e-6),
            "{what} leaves {lo}..{hi}"
        );
        let mean = v.iter().sum::<f64>() / n;
        let var = v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        assert!(
            (mean - (lo + hi) / 2.0).abs() <= 4.0 * w / (12.0 * n).sqrt(),
            "{what}: mean {mean}"
        );
        assert!(
            (var - w * w / 12.0).abs() <= 4.0 * w * w / (180.0 * n).sqrt(),
            "{what}: variance {var}"
        );
    }

    #[test]
    fn draws_are_functions_of_seed_epoch_image_and_view() {
        let a = Augment::supplement();
        let base = a.photo(1, 2, 3, 0, 640);
        assert_eq!(base, a.photo(1, 2, 3, 0, 640));
        let others = [
            a.photo(2, 2, 3, 0, 640),
            a.photo(1, 3, 3, 0, 640),
            a.photo(1, 2, 2, 0, 640),
            a.photo(1, 2, 3, 1, 640),
        ];
        assert!(others.iter().all(|o| *o != base), "{base:?} {others:?}");
        assert_ne!(
            a.photo(1, 2, 3, 1, 640),
            a.photo(1, 2, 4, 0, 640),
            "an image's second view is not the next one's first"
        );
        let base = a.window(1, 2, 3);
        assert_eq!(base, a.window(1, 2, 3));
        assert!(
            [a.window(2, 2, 3), a.window(1, 3, 3), a.window(1, 2, 4)].iter().all(|o| *o != base)
        );
    }

    #[test]
    fn each_row_changes_what_it_is_called_after() {
        let rows = Augment::supplement().rows();
        assert_eq!(rows.len(), 12);
        for (name, a) in rows {
            let draws: Vec<Photo> = (0..50).map(|i| a.photo(3, 0, i, 0, 640)).collect();
            let changed: Vec<&str> = [
                ("brightness", draws.iter().any(|p| p.brightness != 1.0)),
                ("contrast", draws.iter().any(|p| p.contrast != 1.0)),
                ("saturation", draws.iter().any(|p| p.saturation != 1.0)),
                ("hue", draws.iter().any(|p| p.hue != 0.0)),
                ("grey", draws.iter().any(|p| p.grey == 1)),
                ("blur", draws.iter().any(|p| p.sigma != 0.0)),
                ("crop", (0..50).any(|i| a.window(3, 0, i).crop(64).side != 64)),
                ("flip", (0..50).any(|i| a.window(3, 0, i).flip)),
            ]
            .into_iter()
            .filter_map(|(what, changes)| changes.then_some(what))
            .collect();
            match name {
                "none" => assert!(changed.is_empty() && !a.photometric() && !a.geometric()),
                "photometric" => assert_eq!(changed.len(), 6),
                "geometric" => assert_eq!(changed, ["crop", "flip"]),
                "all" => assert_eq!(changed.len(), 8),
                alone => assert_eq!(changed, [alone]),
            }
        }
    }

    #[test]
    fn the_supplement_jitters_all_or_nothing_in_every_order() {
        let draws = photos(Augment::supplement());
        let on = |p: &&Photo| p.brightness != 1.0;
        occurs("jitter", 0.8, draws.iter().map(|p| on(&p)));
        occurs("grey", 0.2, draws.iter().map(|p| p.grey == 1));
        occurs("blur", 0.5, draws.iter().map(|p| p.sigma > 0.0));
        let jittered = || draws.iter().filter(on);
        uniform("brightness", 0.7, 1.3, jittered().map(|p| p.brightness));
        uniform("contrast", 0.7, 1.3, jittered().map(|p| p.contrast));
        uniform("saturation", 0.7, 1.3, jittered().map(|p| p.saturation));
        uniform("hue", -0.1, 0.1, jittered().map(|p| p.hue));
        // Half of 0.1..2: the images are stored at 320.
        uniform("sigma", 0.05, 1.0, draws.iter().filter(|p| p.sigma > 0.0).map(|p| p.sigma));
        let mut orders = std::collections::BTreeMap::new();
        for p in &draws {
            *orders.entry(p.order).or_insert(0) += 1;
            let mut steps = [0, 1, 2, 3].map(|i| p.order >> (2 * i) & 3);
            steps.sort();
            assert_eq!((steps, p.order >> 8), ([0, 1, 2, 3], 0));
        }
        assert_eq!(orders.len(), 24);
        for order in orders.keys() {
            occurs("order", 1.0 / 24.0, draws.iter().map(|p| p.order == *order));
        }
        let none =
            |p: &Photo| (p.brightness, p.contrast, p.saturation, p.hue) == (1.0, 1.0, 1.0, 0.0);
        occurs("none of the four", 0.2, draws.iter().map(none));
    }

    #[test]
    fn the_released_code_jitters_one_by_one_and_never_greys() {
        let draws = photos(Augment::released());
        assert!(draws.iter().all(|p| p.grey == 0 && p.order == Photo::FIXED_ORDER));
        occurs("brightness", 0.8, draws.iter().map(|p| p.brightness != 1.0));
        occurs("contrast", 0.8, draws.iter().map(|p| p.contrast != 1.0));
        occurs("saturation", 0.8, draws.iter().map(|p| p.saturation != 1.0));
        occurs("hue", 0.8, draws.iter().map(|p| p.hue != 0.0));
        occurs("two", 0.64, draws.iter().map(|p| p.brightness != 1.0 && p.contrast != 1.0));
        // |U(−1.8, 0.1)| is below 0.1 twice as often as anywhere else.
        let sigmas = || draws.iter().filter(|p| p.sigma > 0.0).map(|p| 2.0 * p.sigma);
        uniform("sigma", 0.1, 1.8, sigmas().filter(|&s| s > 0.1));
        occurs("a small sigma", 0.2 / 1.9, sigmas().map(|s| s <= 0.1));
    }

    #[test]
    fn crops_lie_inside_and_their_draws_are_uniform() {
        let draws: Vec<Window> = (0..N).map(|i| Augment::supplement().window(9, 1, i)).collect();
        uniform("ratio", 0.5, 1.0, draws.iter().map(|g| g.ratio));
        uniform("down", 0.0, 1.0, draws.iter().map(|g| g.down));
        uniform("right", 0.0, 1.0, draws.iter().map(|g| g.right));
        occurs("flip", 0.5, draws.iter().map(|g| g.flip));
        for g in &draws {
            for side in [1, 2, 3, 32, 80, 640] {
                let c = g.crop(side);
                let most = side as u32;
                assert!(
                    c.side >= 1
                        && c.side >= most / 2
                        && c.top + c.side <= most
                        && c.left + c.side <= most,
                    "{c:?}"
                );
            }
        }
    }

    #[test]
    fn crops_round_as_the_reference_does() {
        let g = Window { ratio: 0.75, down: 0.5, right: 0.25, flip: true };
        // 640: s = 480, 160·0.5 = 80, 160·0.25 = 40.
        assert_eq!(g.crop(640), Crop { top: 80, left: 40, side: 480, flip: 1 });
        // 10: s = int(7.5) = 7, round(1.5) = 2, round(0.75) = 1.
        assert_eq!(g.crop(10), Crop { top: 2, left: 1, side: 7, flip: 1 });
        // 20: s = 15; round(2.5) = 2 to even, round(1.25) = 1.
        assert_eq!(g.crop(20), Crop { top: 2, left: 1, side: 15, flip: 1 });
        // 8: s = 6; round(1.0) = 1, round(0.5) = 0 to even.
        assert_eq!(Window { flip: false, ..g }.crop(8), Crop { top: 1, left: 0, side: 6, flip: 0 });
    }
}
