//! The outlook that a run gives before its first step: its size, its memory, and how long it will
//! take.

use crate::data::ImageStore;
use crate::recipe::{KMeansStart, Recipe};

/// The ratio of the time of an epoch's training steps to that of its label pass, which runs the
/// same views forward. Measured: 3.3 to 4.2 in 20 epochs of 256 scenes at 128² on two busy cores.
const TRAIN_PER_LABELS: f64 = 3.8;
/// If an epoch has fewer steps than this, its pseudo labels teach little.
const FEW_STEPS: usize = 10;
/// If a run without pseudo labels has fewer steps than this, the network hardly changes.
const FEW_IN_ALL: usize = 100;

/// The lines that are shown before a run: its size and, if its epochs are too short, a warning.
/// `planned` is the number of bytes of the plan, scratch included.
pub fn of(recipe: &Recipe, images: &ImageStore, planned: usize) -> Vec<String> {
    let (n, mib) = (images.len(), |bytes: usize| bytes.div_ceil(1 << 20));
    let steps = n.div_ceil(recipe.batch);
    let mut lines = vec![
        format!(
            "{n} images, recipe {}, {} clusters; memory: {} MiB planned, {} MiB of images",
            recipe.name,
            recipe.clusters,
            mib(planned),
            mib(images.memory())
        ),
        format!(
            "{steps} optimizer steps an epoch, {} in {} epochs",
            steps * recipe.epochs,
            recipe.epochs
        ),
    ];
    if !recipe.clustered() && steps * recipe.epochs < FEW_IN_ALL {
        let epochs = FEW_IN_ALL.div_ceil(steps.max(1));
        lines.push(format!(
            "warning: the run has {} optimizer steps, too few to learn much; --epochs {epochs} or a \
             smaller --batch would help",
            steps * recipe.epochs
        ));
    }
    // The recipe `photos` makes up for few steps by more epochs.
    if steps < FEW_STEPS && recipe.clustered() && recipe.epochs < recipe.photos_epochs(n) {
        let batch = (n / FEW_STEPS).max(2);
        let photos = if recipe.name == Recipe::photos().name { "" } else { ", or --recipe photos" };
        let remedy = format!("--batch {batch} or more --epochs would help{photos}");
        lines.push(format!(
            "warning: an epoch has {steps} optimizer steps, too few to learn its labels; {remedy}"
        ));
    }
    lines
}

/// An estimate of the seconds from the end of the first label pass to the end of the run, from the
/// seconds that k-means, labels and an evaluation took.
pub fn seconds_left(recipe: &Recipe, [kmeans, labels, eval]: [f64; 3]) -> f64 {
    let epochs = recipe.epochs as f64;
    // k-means runs the same views forward as the label pass; the rest of its time goes to random
    // starts, of which a warm k-means needs only one.
    let warm = match recipe.kmeans_start {
        KMeansStart::Last => labels + (kmeans - labels).max(0.0) / recipe.kmeans_restarts as f64,
        KMeansStart::Fresh => kmeans,
    };
    epochs * (TRAIN_PER_LABELS * labels + eval) + (epochs - 1.0) * (warm + labels)
}

/// The number of steps whose time tells that of a run without k-means, after the first, which makes
/// what is made once. Of an epoch of `steps`: a tenth.
pub fn timed_steps(steps: usize) -> usize {
    (steps / 10).clamp(2, 50)
}

/// An estimate of the seconds from the end of `timed` steps, which took `seconds`, to the end of a
/// run without k-means whose epochs have `steps`. Without evaluations, which take little.
pub fn seconds_of_steps(recipe: &Recipe, steps: usize, timed: usize, seconds: f64) -> f64 {
    (recipe.epochs * steps - timed - 1) as f64 * seconds / timed as f64
}

/// The line that shows an estimate, by the time of `what`.
pub fn duration(seconds: f64, what: &str) -> String {
    let time = match seconds {
        s if s < 90.0 => format!("{} seconds", s.round().max(1.0)),
        s if s < 5400.0 => format!("{} minutes", (s / 60.0).round()),
        s => format!("{:.1} hours", s / 3600.0),
    };
    format!("about {time} to go, by the time of {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_steps_are_warned_of_where_epochs_do_not_make_up_for_them() {
        let lines = |recipe: &Recipe, n| of(recipe, &ImageStore::noise(n, 32, 1), 5 << 20);
        let picie = lines(&Recipe::picie(), 200);
        assert_eq!(
            picie[0],
            "200 images, recipe picie, 27 clusters; memory: 5 MiB planned, 1 MiB of images"
        );
        assert_eq!(picie[1], "2 optimizer steps an epoch, 20 in 10 epochs");
        assert!(
            picie[2].contains("an epoch has 2 optimizer steps")
                && picie[2].contains("--batch 20")
                && picie[2].ends_with("--recipe photos"),
            "{picie:?}"
        );
        assert_eq!(lines(&Recipe::picie(), 1280).len(), 2);
        let photos = Recipe::photos();
        assert_eq!(
            lines(&Recipe { epochs: photos.photos_epochs(30), ..photos.clone() }, 30).len(),
            2
        );
        let short = lines(&Recipe { epochs: 1, ..photos }, 30);
        assert!(
            short.len() == 3 && short[2].ends_with("--batch 3 or more --epochs would help"),
            "{short:?}"
        );
        let iic = lines(&Recipe { epochs: 2, batch: 10, ..Recipe::iic() }, 100);
        assert!(
            iic[2].ends_with("too few to learn much; --epochs 10 or a smaller --batch would help")
        );
        assert!(iic[2].starts_with("warning: the run has 20 optimizer steps"), "{iic:?}");
        assert_eq!(lines(&Recipe { epochs: 10, batch: 10, ..Recipe::iic() }, 100).len(), 2);
    }

    #[test]
    fn the_rest_of_a_run_without_k_means_is_its_steps() {
        assert_eq!([4, 30, 400, 4000].map(timed_steps), [2, 3, 40, 50]);
        // 2 epochs of 30 steps, of which 1 + 3 are done.
        let recipe = Recipe { epochs: 2, ..Recipe::iic() };
        assert_eq!(seconds_of_steps(&recipe, 30, 3, 1.5), 56.0 * 0.5);
    }

    #[test]
    fn the_rest_of_a_run_is_its_phases() {
        let recipe = Recipe {
            epochs: 3,
            kmeans_restarts: 4,
            kmeans_start: KMeansStart::Last,
            ..Recipe::picie()
        };
        // A warm k-means takes 10 for the forward passes, and a fourth of the 8 that the starts
        // took.
        let want = 3.0 * (TRAIN_PER_LABELS * 10.0 + 2.0) + 2.0 * (12.0 + 10.0);
        assert_eq!(seconds_left(&recipe, [18.0, 10.0, 2.0]), want);
        let fresh = Recipe { kmeans_start: KMeansStart::Fresh, ..recipe };
        assert_eq!(seconds_left(&fresh, [18.0, 10.0, 2.0]), want + 2.0 * 6.0);
        let texts = [0.2, 89.0, 100.0, 7000.0].map(|s| duration(s, "the first steps"));
        for (text, time) in texts.iter().zip(["1 seconds", "89 seconds", "2 minutes", "1.9 hours"])
        {
            assert!(
                text.contains(&format!("about {time} to go, by the time of the first steps")),
                "{text}"
            );
        }
    }
}
