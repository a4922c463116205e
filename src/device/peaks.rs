//! What an engine reaches at best: copies of several sizes, and large products. Ops are held
//! against it.
//!
//! A copy that fits a cache is faster than one that does not, and one of a few bytes takes as long
//! as it takes to start. So copies of 8 KiB to at most 512 MiB are measured, and an op that must
//! move some bytes can take no less than a copy of as many. Products are the engine's own
//! convolutions, of sizes that grow until one takes long enough.

use serde::{Deserialize, Serialize};

use crate::base::Result;
use crate::device::ops::{ConvForward, ConvSpec, Epilogue, Terms, Uses, conv_forward, plan_conv};
use crate::device::{Engine, Layout, Pool, Recording, Work};

/// The speed of copies of one size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopyRate {
    /// Bytes read and bytes written, together.
    pub bytes: f64,
    /// Bytes read and written a second, in 1e9.
    pub gb_per_s: f64,
}

/// The peaks of an engine, which bound every op.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peaks {
    /// The smallest copies first; at least one.
    pub copies: Vec<CopyRate>,
    /// TFLOP/s of large matrix products (1×1 convolutions). `None`: not known.
    pub tflop_per_s: Option<f64>,
    /// TFLOP/s of large 3×3 convolutions, counted as plain sums.
    pub windows_tflop_per_s: Option<f64>,
    /// TFLOP/s of dense products of this type by the maker's data sheet, where it is known.
    pub sheet_tflop_per_s: Option<f64>,
    /// GB/s by the clock and the width of the memory, where the driver tells.
    pub sheet_gb_per_s: Option<f64>,
}

/// What bounds an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// The bytes that it must move.
    Memory,
    /// The products that it must compute.
    Math,
    /// It is so small that its start takes most of its time.
    Latency,
}

/// The least time of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Floor {
    pub seconds: f64,
    pub bound: Bound,
}

/// Bytes of the smallest buffer that is copied, and the largest number of sizes, each 4 times the
/// last.
const SMALLEST: usize = 4 << 10;
const SIZES: u32 = 9;
/// Bytes that copies of one size move together, at most, unless one copy moves more.
const VOLUME: usize = 128 << 20;
/// Copies of one size in a recording, at most.
const REPEATS: usize = 64;
/// Times that each measurement is repeated. The best counts: whatever else runs only slows it.
const BEST_OF: usize = 3;
/// Copies and products stop to grow when one call takes so many seconds.
const ENOUGH: f64 = 0.01;

impl Peaks {
    /// Peaks that are known beforehand: any copy has this speed, any product that one.
    pub fn known(copy_gb_per_s: f64, tflop_per_s: f64) -> Self {
        Peaks {
            copies: vec![CopyRate { bytes: 1.0, gb_per_s: copy_gb_per_s }],
            tflop_per_s: Some(tflop_per_s),
            ..Peaks::default()
        }
    }

    /// Measures an engine, which takes a second or two. The engine's memory is reserved anew.
    pub fn measure(dev: &mut dyn Engine) -> Result<Self> {
        let copies = copies(dev)?;
        Ok(Peaks {
            copies,
            tflop_per_s: Some(products(dev, 1)?),
            windows_tflop_per_s: Some(products(dev, 3)?),
            ..Peaks::default()
        })
    }

    /// The better of two measurements, each by itself: whatever else runs only slows them.
    pub fn or_better(self, other: &Self) -> Self {
        let faster = |a: Option<f64>, b: Option<f64>| Some(a?.max(b?));
        let rate = |other: &CopyRate| other.gb_per_s;
        let better = |(i, a): (usize, &CopyRate)| CopyRate {
            gb_per_s: a.gb_per_s.max(other.copies.get(i).map_or(0.0, rate)),
            ..*a
        };
        Peaks {
            copies: self.copies.iter().enumerate().map(better).collect(),
            tflop_per_s: faster(self.tflop_per_s, other.tflop_per_s),
            windows_tflop_per_s: faster(self.windows_tflop_per_s, other.windows_tflop_per_s),
            ..self
        }
    }

    /// GB/s of copies that no cache holds.
    pub fn copy_gb_per_s(&self) -> f64 {
        self.copies.last().map_or(0.0, |copy| copy.gb_per_s)
    }

    /// Seconds of a copy of `bytes` bytes, read and written. Between two sizes that were measured
    /// the speed changes with the logarithm of the size; below the smallest a copy takes as long as
    /// that one.
    pub fn copy_seconds(&self, bytes: f64) -> f64 {
        let above = self.copies.iter().position(|copy| copy.bytes >= bytes);
        let rate = match above {
            Some(0) => return self.smallest(),
            Some(i) => {
                let (a, b) = (self.copies[i - 1], self.copies[i]);
                let part = (bytes / a.bytes).ln() / (b.bytes / a.bytes).ln();
                a.gb_per_s + part * (b.gb_per_s - a.gb_per_s)
            }
            None => self.copy_gb_per_s(),
        };
        bytes / (rate * 1e9)
    }

    /// Seconds of the smallest copy that was measured, if it was: 0 where copies are only known.
    fn smallest(&self) -> f64 {
        match self.copies[..] {
            [first, _, ..] => first.bytes / (first.gb_per_s * 1e9),
            _ => 0.0,
        }
    }

    /// TFLOP/s that products of this kind can reach.
    pub fn products(&self, windows: bool) -> Option<f64> {
        let plain = self.tflop_per_s?;
        Some(if windows { plain.max(self.windows_tflop_per_s.unwrap_or(plain)) } else { plain })
    }

    /// The least time of a call that does this work.
    pub fn floor(&self, work: Work) -> Floor {
        let moved = self.copy_seconds(work.bytes);
        let computed = self.products(work.windows).map_or(0.0, |peak| work.flops / (peak * 1e12));
        let seconds = moved.max(computed);
        let bound = if seconds <= 2.0 * self.smallest() {
            Bound::Latency
        } else if computed > moved {
            Bound::Math
        } else {
            Bound::Memory
        };
        Floor { seconds, bound }
    }
}

/// The least seconds of `calls`, which are run [`BEST_OF`] times after twice to warm up, per call.
fn best(
    dev: &mut dyn Engine,
    calls: usize,
    mut call: impl FnMut(&mut dyn Engine) -> Result<()>,
) -> Result<f64> {
    let mut recording = Recording::default();
    let mut least = f64::INFINITY;
    for run in 0..2 + BEST_OF {
        let start = dev.mark()?;
        dev.replay(&mut recording, |dev| (0..calls).try_for_each(|_| call(dev)))?;
        let end = dev.mark()?;
        let seconds = dev.seconds(&start, &end)?;
        if run >= 2 {
            least = least.min(seconds / calls as f64);
        }
    }
    // A clock may be too coarse for what is very small.
    Ok(least.max(1e-9))
}

/// The speed of copies of growing size.
fn copies(dev: &mut dyn Engine) -> Result<Vec<CopyRate>> {
    let mut rates = Vec::new();
    for size in (0..SIZES).map(|i| SMALLEST << (2 * i)) {
        let mut layout = Layout::new(dev.dtype());
        let [from, to] = ["from", "to"].map(|name| layout.take::<u8>(Pool::Acts, name, size));
        dev.reserve(&layout)?;
        dev.zero(from)?;
        let calls = (VOLUME / (2 * size)).clamp(1, REPEATS);
        let seconds = best(dev, calls, |dev| dev.copy(to, from))?;
        let bytes = 2.0 * size as f64;
        rates.push(CopyRate { bytes, gb_per_s: bytes / seconds / 1e9 });
        if seconds > ENOUGH {
            break;
        }
    }
    Ok(rates)
}

/// TFLOP/s of the fastest of several convolutions with `r`×`r` kernels.
fn products(dev: &mut dyn Engine, r: usize) -> Result<f64> {
    let mut most = 0.0f64;
    for (n, side, channels) in
        [(1, 16, 64), (4, 16, 128), (16, 16, 256), (32, 16, 512), (64, 16, 1024), (128, 16, 2048)]
    {
        let spec = ConvSpec {
            n,
            h: side,
            w: side,
            // A window has nine times the products.
            c: if r == 1 { channels } else { channels / 2 },
            k: if r == 1 { channels } else { channels / 2 },
            r,
            stride: 1,
            pad: r / 2,
        };
        let plan = plan_conv(dev, spec, Uses::forward(Terms::NONE))?;
        let mut layout = Layout::new(dev.dtype());
        let x = layout.acts(Pool::Acts, "x", spec.x_len());
        let w = layout.acts(Pool::Acts, "w", spec.w_len());
        let y = layout.acts(Pool::Acts, "y", spec.y_len());
        dev.reserve(&layout)?;
        // NOTE: zeros would need less power than what a training multiplies.
        for slot in [x, w] {
            let noise: Vec<f32> =
                (0..slot.len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 64.0).collect();
            dev.write_acts(slot, &noise)?;
        }
        let call = ConvForward { y, x, w, epilogue: Epilogue::NONE };
        let seconds = best(dev, 1, |dev| conv_forward(dev, &plan, call))?;
        most = most.max(spec.flops() / seconds / 1e12);
        if seconds > ENOUGH {
            break;
        }
    }
    Ok(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::Cpu;

    fn peaks() -> Peaks {
        let copy = |bytes, gb_per_s| CopyRate { bytes, gb_per_s };
        Peaks {
            // 1 µs, 10 µs, 1 ms.
            copies: vec![copy(1e3, 1.0), copy(1e6, 100.0), copy(1e8, 100.0), copy(1e9, 10.0)],
            tflop_per_s: Some(1.0),
            windows_tflop_per_s: Some(2.0),
            ..Peaks::default()
        }
    }

    #[test]
    fn a_copy_takes_what_copies_of_its_size_take() {
        let near = |a: f64, b: f64| assert!((a - b).abs() <= 1e-9 * b, "{a} {b}");
        near(peaks().copy_seconds(0.0), 1e-6);
        near(peaks().copy_seconds(1e3), 1e-6);
        near(peaks().copy_seconds(1e7), 1e-4);
        near(peaks().copy_seconds(1e9), 0.1);
        near(peaks().copy_seconds(1e11), 10.0);
        // Half of the way from 1e8 to 1e9 in the logarithm: half of the way from 100 to 10 GB/s.
        near(peaks().copy_seconds(1e8 * 10f64.sqrt()), 1e8 * 10f64.sqrt() / 55e9);
    }

    #[test]
    fn a_floor_is_the_larger_of_bytes_and_products_and_says_which() {
        let floor = |bytes, flops| peaks().floor(Work { bytes, flops, windows: false });
        assert_eq!(floor(1e7, 1e6), Floor { seconds: 1e-4, bound: Bound::Memory });
        assert_eq!(floor(1e7, 1e9), Floor { seconds: 1e-3, bound: Bound::Math });
        assert_eq!(floor(10.0, 1e5), Floor { seconds: 1e-6, bound: Bound::Latency });
        let windows = peaks().floor(Work { bytes: 1e7, flops: 1e9, windows: true });
        assert_eq!(windows, Floor { seconds: 0.5e-3, bound: Bound::Math });
        let slow = Peaks { windows_tflop_per_s: Some(0.5), ..peaks() };
        assert_eq!(slow.products(true), Some(1.0), "a window can be a plain product");
        let known = Peaks::known(1000.0, 100.0);
        assert_eq!(known.floor(Work::moved(1000)), Floor { seconds: 1e-9, bound: Bound::Memory });
    }

    #[test]
    fn the_cpu_is_measured() {
        let peaks = Peaks::measure(&mut Cpu::new()).unwrap();
        assert!((5..=SIZES as usize).contains(&peaks.copies.len()), "{peaks:?}");
        assert!(peaks.copies.windows(2).all(|pair| pair[1].bytes == 4.0 * pair[0].bytes));
        // A machine that is slower than this, or faster, is not built yet.
        let all = [peaks.tflop_per_s, peaks.windows_tflop_per_s].map(Option::unwrap);
        assert!(all.iter().all(|t| (1e-4..1e2).contains(t)), "{peaks:?}");
        assert!(peaks.copies.iter().all(|c| (0.01..1e5).contains(&c.gb_per_s)), "{peaks:?}");
    }
}
