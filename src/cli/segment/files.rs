//! The files that are written for a photo.

use std::path::{Path, PathBuf};

use crate::base::Result;
use crate::cli::outputs::{self, Output};

/// The paths of a photo's outputs.
pub struct Files {
    pub labels: PathBuf,
    pub overlay: PathBuf,
    /// The scores of all clusters, if they were asked for.
    pub scores: Option<PathBuf>,
    /// A picture of each cluster (K) alone, if these were asked for; only those are written that
    /// the photo has.
    pub cutouts: Vec<PathBuf>,
}

impl Files {
    /// The outputs in `out` of the photo that is called `name` there, with so many cut out.
    pub fn new(out: &Path, name: &Path, scores: bool, cutouts: usize) -> Self {
        let file = |what: &str| {
            let mut path = out.join(name).into_os_string();
            path.push(what);
            PathBuf::from(path)
        };
        Files {
            labels: file("-labels.png"),
            overlay: file("-overlay.png"),
            scores: scores.then(|| file("-scores.safetensors")),
            cutouts: (0..cutouts).map(|id| file(&format!("-cutout-{id}.png"))).collect(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.labels, &self.overlay].into_iter().chain(&self.scores).chain(&self.cutouts)
    }

    /// All that may be written for the photo `of`.
    pub fn outputs(&self, of: &Path) -> impl Iterator<Item = Output> {
        self.all().map(move |path| Output::new(path, of.display()))
    }

    /// Fails if one of them cannot be written, or only over an image that picie did not draw.
    pub fn check_places(&self) -> Result<()> {
        self.all().try_for_each(|path| outputs::check_place(path))
    }
}
