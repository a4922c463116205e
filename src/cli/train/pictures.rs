//! The pictures of a run.

use image::RgbImage;

use crate::base::{Error, Result};
use crate::cli::pictures::{picture, truth};
use crate::data::PictureSet;
use crate::eval::{ClassOf, Segment};
use crate::recipe::Recipe;
use crate::report::palette::Colour;
use crate::report::pictures::{overlay, relabel, write_rgb};
use crate::report::sheet::{SheetRow, sheet};
use crate::train::{RunFolder, Seen, Sets};

/// Validation images, spread over all, with predictions and, if there are labels, their truth.
pub struct Pictures {
    rows: Vec<SheetRow>,
    /// The names of the images.
    ids: Vec<String>,
    /// The names and colours of the classes, or of the clusters if there are no labels.
    legend: Vec<(String, Colour)>,
}

impl Pictures {
    /// The pictures of what the network makes of the validation images.
    pub fn new(sets: &Sets, recipe: &Recipe, seen: &Seen) -> Result<Self> {
        let images = sets.val.images();
        let (class_of, legend): (ClassOf, Vec<(String, Colour)>) =
            match (&sets.val, &seen.confusion) {
                (PictureSet::Labelled(val), Some(confusion)) => (
                    recipe.matching.in_pictures(confusion)?,
                    Segment::class_legend(&Segment::classes(&val.taxonomy)),
                ),
                _ => ((0..recipe.clusters).map(Some).collect(), Segment::legend(&seen.segments)),
            };
        let prediction = relabel(&seen.clusters, &class_of);
        let (mut rows, mut ids) = (Vec::new(), Vec::new());
        for (&i, labels) in seen.shown.iter().zip(prediction.chunks(images.size().pow(2))) {
            let truth = match &sets.val {
                PictureSet::Labelled(val) => Some(truth(val, i)?),
                PictureSet::Plain(_) => None,
            };
            let image = picture(images, i)?;
            rows.push(SheetRow { image, predictions: vec![labels.to_vec()], truth });
            ids.push(images.items[i].id.clone());
        }
        Ok(Pictures { rows, ids, legend })
    }

    /// Writes a sheet (image, prediction, ground truth), and an overlay of each of its images.
    pub fn write(&self, folder: &RunFolder) -> Result<()> {
        let dir = folder.pictures();
        std::fs::create_dir_all(&dir).map_err(|e| Error::io(&dir, e))?;
        let colours = self.colours();
        for (i, (row, id)) in self.rows.iter().zip(&self.ids).enumerate() {
            let drawn = overlay(&row.image, &row.predictions[0], &colours)?;
            write_rgb(&dir.join(picture_name(i, id)), &drawn)?;
        }
        let sheet = sheet(&self.rows, &["prediction".into()], &self.legend)?;
        write_rgb(&dir.join("sheet.png"), &sheet)
    }

    fn colours(&self) -> Vec<Colour> {
        self.legend.iter().map(|(_, colour)| *colour).collect()
    }

    /// The pictures of each image with their titles.
    pub fn titled(&self) -> Result<Vec<Vec<(&'static str, RgbImage)>>> {
        let colours = self.colours();
        let row = |row: &SheetRow| {
            let drawn = |labels| overlay(&row.image, labels, &colours);
            let mut cells =
                vec![("image", row.image.clone()), ("prediction", drawn(&row.predictions[0])?)];
            if let Some(truth) = &row.truth {
                cells.push(("ground truth", drawn(truth)?));
            }
            Ok(cells)
        };
        self.rows.iter().map(row).collect()
    }

    /// The names and colours of the classes that occur in the pictures.
    pub fn legend(&self) -> Vec<(String, Colour)> {
        let labels = |row: &SheetRow| {
            row.predictions.iter().chain(&row.truth).flatten().copied().collect::<Vec<u16>>()
        };
        let mut occurs = vec![false; self.legend.len()];
        for label in self.rows.iter().flat_map(labels) {
            if let Some(seen) = occurs.get_mut(usize::from(label)) {
                *seen = true;
            }
        }
        let named = self.legend.iter().cloned();
        named.zip(occurs).filter_map(|(class, seen)| seen.then_some(class)).collect()
    }
}

/// A file name for image `i`. The number makes it unique; as much of the image's name as fits says
/// which image it is.
fn picture_name(i: usize, id: &str) -> String {
    let id = id.replace(['/', '\\'], "_");
    // File systems allow names of 255 bytes.
    let start = (id.len().saturating_sub(200)..).find(|&at| id.is_char_boundary(at)).unwrap_or(0);
    format!("{}-{}.png", i + 1, &id[start..])
}
