//! The algorithms of PiCIE written down on the host, point by point, in f64.

use picie::base::rng::Rng;
use picie::net::FEATURES;

pub fn nearest(f: &[f64; FEATURES], centroids: &[[f64; FEATURES]]) -> (usize, f64) {
    let distance = |c: &[f64; FEATURES]| f.iter().zip(c).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    let all = centroids.iter().map(distance).enumerate();
    all.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap()
}

/// Sums and counts of the nearest centroids, and the mean squared distance.
pub fn assign(
    points: &[[f64; FEATURES]],
    centroids: &[[f64; FEATURES]],
) -> (Vec<[f64; FEATURES]>, Vec<f64>, f64) {
    let (mut sums, mut counts, mut total) =
        (vec![[0.0; FEATURES]; centroids.len()], vec![0.0; centroids.len()], 0.0);
    for f in points {
        let (k, d) = nearest(f, centroids);
        sums[k].iter_mut().zip(f).for_each(|(s, v)| *s += v);
        counts[k] += 1.0;
        total += d;
    }
    (sums, counts, total / points.len() as f64)
}

/// Where Lloyd's algorithm begins.
pub enum Begin {
    /// At points drawn so many times; the best by objective stays.
    Drawn(usize, Rng),
    At(Vec<[f64; FEATURES]>),
}

/// The released code's mini-batch k-means (method: buffer, Lloyd, then updates of `every` batches),
/// in f64.
pub fn reference(
    batches: &[Vec<[f64; FEATURES]>],
    k: usize,
    iters: usize,
    every: usize,
    begin: Begin,
) -> (Vec<[f64; FEATURES]>, f64) {
    let first = &batches[0];
    let starts: Vec<Vec<[f64; FEATURES]>> = match begin {
        Begin::At(centroids) => vec![centroids],
        Begin::Drawn(starts, mut rng) => {
            let mut draw =
                || rng.choose(first.len(), k).iter().map(|&i| first[i as usize]).collect();
            (0..starts).map(|_| draw()).collect()
        }
    };
    let lloyd = |mut c: Vec<[f64; FEATURES]>| {
        for _ in 0..iters {
            let (sums, counts, _) = assign(first, &c);
            assert!(counts.iter().all(|&n| n > 0.0), "choose data without empty clusters");
            c = sums.iter().zip(&counts).map(|(s, n)| s.map(|v| v / n)).collect();
        }
        let objective = assign(first, &c).2;
        (c, objective)
    };
    let ends = starts.into_iter().map(lloyd);
    let (mut c, objective) = ends.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let (_, mut totals, _) = assign(first, &c);
    let mut objectives = vec![objective];
    for batches in batches[1..].chunks_exact(every) {
        let (sums, counts, objective) = assign(&batches.concat(), &c);
        objectives.push(objective);
        for j in 0..k {
            if counts[j] > 0.0 {
                totals[j] += counts[j];
                let eta = counts[j] / (totals[j] + 1e-6);
                c[j].iter_mut()
                    .zip(&sums[j])
                    .for_each(|(c, s)| *c = (1.0 - eta) * *c + eta * s / counts[j]);
            }
        }
    }
    (c, objectives.iter().sum::<f64>() / objectives.len() as f64)
}

/// Mean weighted cross-entropy (torch's: Σ w·ℓ / Σ w) of points against dot-product scores, in f64.
pub fn cross_entropy(points: &[f32], centroids: &[f32], labels: &[u16], weights: &[f32]) -> f64 {
    let (mut sum, mut total) = (0.0, 0.0);
    for (f, &y) in points.chunks(FEATURES).zip(labels) {
        let score = |c: &[f32]| f.iter().zip(c).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let scores: Vec<f64> = centroids.chunks(FEATURES).map(score).collect();
        let log_sum = scores.iter().map(|s| s.exp()).sum::<f64>().ln();
        let w = f64::from(weights[usize::from(y)]);
        sum += w * (log_sum - scores[usize::from(y)]);
        total += w;
    }
    sum / total
}
