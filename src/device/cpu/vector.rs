//! Arithmetic on vectors of channels and scores: plain loops over fixed lanes, which
//! [`wide`](crate::device::cpu::wide::wide) compiles for the widest unit.
//!
//! A sum goes to [`LANES`] accumulators and then down a fixed tree, without fused multiply-adds, so
//! its bits depend on neither threads nor the width of the machine's registers.

pub const LANES: usize = 16;

/// Combines all lanes to one value by `f`, pair by pair down a tree.
#[inline(always)]
pub fn tree<T: Copy>(mut lanes: [T; LANES], f: impl Fn(T, T) -> T) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            lanes[l] = f(lanes[l], lanes[l + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// A last, incomplete chunk, filled up with `pad`.
#[inline(always)]
fn padded(rest: &[f32], pad: f32) -> [f32; LANES] {
    let mut full = [pad; LANES];
    full[..rest.len()].copy_from_slice(rest);
    full
}

/// Σ a·b.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for l in 0..LANES {
            sums[l] += a[l] * b[l];
        }
    }
    if !a_rest.is_empty() {
        let (a, b) = (padded(a_rest, 0.0), padded(b_rest, 0.0));
        for l in 0..LANES {
            sums[l] += a[l] * b[l];
        }
    }
    tree(sums, |x, y| x + y)
}

/// y += a·x.
#[inline(always)]
pub fn add_scaled(y: &mut [f32], a: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

/// x, but at least `floor`. NOTE: not f32::max, which would turn NaN into `floor` and hide it; this
/// is one instruction too.
#[inline(always)]
pub fn at_least(x: f32, floor: f32) -> f32 {
    if x < floor { floor } else { x }
}

/// eˣ for x <= 0, within 2e-7 of it relatively; below −87 it stays at e⁻⁸⁷. NaN stays NaN.
///
/// x = n·ln 2 + r with |r| <= ln 2 / 2, eʳ by its Taylor polynomial of degree 7 (remainder below
/// 6e-9), 2ⁿ by its bits.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding 1.5·2²³ rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts; the first has so few bits that n times it is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = at_least(x, -87.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = (p * r + 1.0) * r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    p * f32::from_bits(exponent << 23)
}

/// row = exp(row − max); returns the maximum and the sum of the exponentials.
#[inline(always)]
pub fn exp_row(row: &mut [f32]) -> (f32, f32) {
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    let mut tail = padded(rest, f32::NEG_INFINITY);
    let mut best = tail;
    for chunk in chunks.iter() {
        for l in 0..LANES {
            best[l] = if chunk[l] > best[l] { chunk[l] } else { best[l] };
        }
    }
    let max = tree(best, |a, b| if a > b { a } else { b });
    let mut sums = [0.0; LANES];
    for chunk in chunks.iter_mut() {
        for l in 0..LANES {
            chunk[l] = exp(chunk[l] - max);
            sums[l] += chunk[l];
        }
    }
    if !rest.is_empty() {
        // The padding adds at most 15·e⁻⁸⁷, which no sum of 1 and more feels.
        for l in 0..LANES {
            tail[l] = exp(tail[l] - max);
            sums[l] += tail[l];
        }
        rest.copy_from_slice(&tail[..rest.len()]);
    }
    (max, tree(sums, |a, b| a + b))
}

/// Returns the cross-entropy ℓ = log Σ exp(scores) − score[y] of a row of scores, which becomes the
/// gradient of slope·ℓ.
#[inline(always)]
pub fn cross_entropy(row: &mut [f32], y: usize, slope: f32) -> f32 {
    let at_label = row[y];
    let (max, sum) = exp_row(row);
    let factor = slope / sum;
    row.iter_mut().for_each(|v| *v *= factor);
    row[y] -= slope;
    sum.ln() - (at_label - max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_its_stated_error() {
        for i in 0..=870_000 {
            let x = -(i as f32) * 1e-4;
            let want = f64::from(x).exp();
            let err = (f64::from(exp(x)) - want).abs() / want;
            assert!(err <= 2e-7, "exp({x}) is off by {err:e}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1e30) <= 2e-38 && exp(f32::NAN).is_nan());
    }

    #[test]
    fn dot_sums_every_element_once() {
        for len in [1, 15, 16, 17, 128] {
            let a: Vec<f32> = (0..len).map(|i| (i % 7) as f32 - 3.0).collect();
            let b: Vec<f32> = (0..len).map(|i| (i % 5) as f32 + 1.0).collect();
            // Small integers: exact in any order.
            assert_eq!(dot(&a, &b), a.iter().zip(&b).map(|(x, y)| x * y).sum::<f32>());
        }
    }
}
