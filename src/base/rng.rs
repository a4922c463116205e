//! Random numbers by Philox4x32-10, a counter-based generator: a draw is a pure function of (seed,
//! stream, counter).
//!
//! Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). There is no
//! state to save, so a resumed run draws the same numbers as an uninterrupted one.

use std::collections::HashSet;

/// The purpose of a sequence of draws. Two streams never share a counter, so their draws are
/// independent. The numbers are part of a run's results: they may not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// Initial parameters of the network.
    Init = 1,
    /// Changes of an image's colours and sharpness.
    Photometric = 2,
    /// Crops and flips.
    Geometric = 3,
    /// The order of images when features are clustered.
    ClusterOrder = 4,
    /// The order of images when the network is trained.
    TrainOrder = 5,
    /// The first centroids of k-means.
    KMeansInit = 6,
    /// The images of the demo set.
    Scenes = 7,
    /// Samples for measuring and choosing, and draws in tests.
    Other = 8,
    /// Initial parameters of learned classifiers.
    Classifier = 9,
}

/// Four random numbers: one block of Philox4x32-10, the function of a key and a counter.
pub fn philox(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let (mut k, mut c) = (key, counter);
    for _ in 0..10 {
        let p0 = 0xD251_1F53_u64 * u64::from(c[0]);
        let p1 = 0xCD9E_8D57_u64 * u64::from(c[2]);
        c = [
            (p1 >> 32) as u32 ^ c[1] ^ k[0],
            p1 as u32,
            (p0 >> 32) as u32 ^ c[3] ^ k[1],
            p0 as u32,
        ];
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

/// The sequence of draws number 0, 1, 2, … of (seed, stream, a, b). Callers choose a and b, for
/// instance a = epoch and b = 2·image + view.
#[derive(Clone, Debug)]
pub struct Rng {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

impl Rng {
    /// The sequence from its first draw.
    pub fn new(seed: u64, stream: Stream, a: u32, b: u32) -> Self {
        let key = [seed as u32, (seed >> 32) as u32];
        Rng { key, counter: [0, b, a, stream as u32], block: [0; 4], used: 4 }
    }

    /// The next draw: uniform in all 32 bits.
    pub fn u32(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox(self.key, self.counter);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// A uniform draw in [0, 1), with 24 bits.
    pub fn unit(&mut self) -> f32 {
        (self.u32() >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// A uniform draw in [lo, hi).
    pub fn uniform(&mut self, lo: f32, hi: f32) -> f32 {
        lo + (hi - lo) * self.unit()
    }

    /// A draw that is true with probability `p`.
    pub fn bernoulli(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    /// A uniform draw in 0..n (Lemire's multiply-shift; its bias of n / 2³² matters for no use
    /// here).
    pub fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.u32()) * n as u64) >> 32) as usize
    }

    /// A draw from the standard normal distribution (Box–Muller, the cosine half).
    pub fn normal(&mut self) -> f32 {
        let (u, v) = (1.0 - self.unit(), self.unit());
        (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
    }

    /// A random permutation of 0..n (Fisher–Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut p: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            p.swap(i, self.below(i + 1));
        }
        p
    }

    /// `k` different numbers below `n`, in random order, as from the start of a permutation but
    /// without making one. `k` may be `n` at most, or this never returns.
    pub fn choose(&mut self, n: usize, k: usize) -> Vec<u32> {
        let (mut chosen, mut seen) = (Vec::new(), HashSet::new());
        while chosen.len() < k {
            let i = self.below(n) as u32;
            if seen.insert(i) {
                chosen.push(i);
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_known_answers() {
        // The vectors of Random123's kat_vectors file.
        assert_eq!(philox([0, 0], [0; 4]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([!0, !0], [!0; 4]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        let pi = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344];
        assert_eq!(
            philox([0xa4093822, 0x299f31d0], pi),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    #[test]
    fn draws_are_functions_of_their_counters() {
        let draw = |a, b| Rng::new(7, Stream::Photometric, a, b).unit();
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(2, 1));
        let mut p = Rng::new(7, Stream::TrainOrder, 0, 0).permutation(1000);
        assert_ne!(p[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        p.sort();
        assert!(p.iter().enumerate().all(|(i, &v)| i as u32 == v));
        let mut few = Rng::new(7, Stream::KMeansInit, 0, 0).choose(40, 40);
        assert_ne!(few[..4], [0, 1, 2, 3]);
        few.sort();
        assert_eq!(few, Vec::from_iter(0..40), "different numbers, all below n");
    }

    #[test]
    fn normal_has_mean_zero_and_variance_one() {
        let mut r = Rng::new(3, Stream::Init, 0, 0);
        let x: Vec<f64> = (0..100_000).map(|_| f64::from(r.normal())).collect();
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64;
        // 4 standard errors of the mean (1/√n) and of the variance (√(2/n)).
        assert!(
            mean.abs() <= 4.0 / (1e5f64).sqrt() && (var - 1.0).abs() <= 4.0 * (2.0 / 1e5f64).sqrt(),
            "{mean} {var}"
        );
    }
}
