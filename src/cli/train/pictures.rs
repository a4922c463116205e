//! The pictures of a finished run.

use crate::augment::View;
use crate::base::{Error, Result, stop};
use crate::cli::pictures::{class_in_pictures, picture, truth};
use crate::cli::train::SHOWN;
use crate::data::PictureSet;
use crate::device::Engine;
use crate::eval::ClassOf;
use crate::report::palette;
use crate::report::pictures::{overlay, relabel, write_rgb};
use crate::report::sheet::{SheetRow, sheet};
use crate::train::{Outcome, RunFolder, Sets};

/// Writes a sheet (image, prediction, ground truth), and an overlay of each of its images.
pub fn write(
    dev: &mut dyn Engine,
    folder: &RunFolder,
    sets: &Sets,
    outcome: Outcome,
) -> Result<()> {
    let Outcome { method, mut evaluator, .. } = outcome;
    let dir = folder.pictures();
    std::fs::create_dir_all(&dir).map_err(|e| Error::io(&dir, e))?;
    let images = sets.val.images();
    let n = SHOWN.min(images.len());
    let side = images.size();
    let (classifier, common) = (method.classifier(dev, true)?, method.common());
    let clusters = evaluator.predict(dev, &common.net, images, classifier, n)?;
    let (class_of, names): (ClassOf, Vec<String>) = match &sets.val {
        PictureSet::Labelled(val) => {
            let confusion =
                evaluator
                    .run(dev, &common.net, val, classifier, View::Plain, &mut |_| stop::check())?;
            (
                class_in_pictures(common.recipe.matching, &confusion)?,
                val.taxonomy.classes.iter().map(|name| name.to_string()).collect(),
            )
        }
        PictureSet::Plain(_) => {
            let k = common.recipe.clusters;
            ((0..k).map(Some).collect(), (1..=k).map(|c| format!("cluster {c}")).collect())
        }
    };
    let prediction = relabel(&clusters, &class_of);
    let colours = palette::palette(names.len());
    let mut rows = Vec::new();
    for (i, labels) in prediction.chunks(side * side).enumerate() {
        let picture = picture(images, i)?;
        let truth = match &sets.val {
            PictureSet::Labelled(val) => Some(truth(val, i)?),
            PictureSet::Plain(_) => None,
        };
        write_rgb(
            &dir.join(picture_name(i, &images.items[i].id)),
            &overlay(&picture, labels, &colours)?,
        )?;
        rows.push(SheetRow { image: picture, predictions: vec![labels.to_vec()], truth });
    }
    write_rgb(&dir.join("sheet.png"), &sheet(&rows, &["prediction".into()], &names)?)
}

/// A file name for image `i`. The number makes it unique; as much of the image's name as fits says
/// which image it is.
fn picture_name(i: usize, id: &str) -> String {
    let id = id.replace(['/', '\\'], "_");
    // File systems allow names of 255 bytes.
    let start = (id.len().saturating_sub(200)..).find(|&at| id.is_char_boundary(at)).unwrap_or(0);
    format!("{}-{}.png", i + 1, &id[start..])
}
