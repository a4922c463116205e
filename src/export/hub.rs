//! A folder as model hubs have it. `model.safetensors` is the checkpoint without what only resuming
//! needs, so picie reads it as well.

use std::path::Path;

use serde_json::{Value, json};

use super::{Exported, TORCH, write};
use crate::base::Result;
use crate::device::ops::view::{MEAN, STD};
use crate::net::weights::{self, Weights};

/// The names of the files.
pub const FILES: [&str; 4] = ["config.json", "model.safetensors", "README.md", "picie.py"];

/// The beginnings of the names of tensors that only resuming needs.
const RESUMING: [&str; 3] = ["adam.", "labels", "label_counts"];

/// Writes the files into a folder that is there.
///
/// Errors: a file cannot be written.
pub fn write_folder(dir: &Path, exported: &Exported) -> Result<()> {
    let config = serde_json::to_string_pretty(&config(exported)).expect("a config is plain data");
    let texts = [config + "\n", card(exported), TORCH.to_string()];
    for (name, text) in [FILES[0], FILES[2], FILES[3]].iter().zip(texts) {
        write(&dir.join(name), &text)?;
    }
    weights::write(&dir.join(FILES[1]), &for_use(&exported.trained.weights))
}

/// The tensors and metadata without what only resuming needs.
fn for_use(all: &Weights) -> Weights {
    let kept = |name: &str| !RESUMING.iter().any(|begin| name.starts_with(begin));
    let tensors = all.tensors.iter().filter(|(name, _)| kept(name));
    let tensors = tensors.map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    Weights { tensors, metadata: all.metadata.clone() }
}

/// What `config.json` holds, by the names that others use where there are such names.
fn config(exported: &Exported) -> Value {
    let recipe = &exported.trained.recipe;
    json!({
        "model_type": "picie",
        "architectures": ["Picie"],
        "picie_version": env!("CARGO_PKG_VERSION"),
        "num_labels": recipe.clusters,
        "id2label": exported.names(),
        "id2color": exported.colours(),
        "short_side": recipe.photo_size(),
        "image_mean": MEAN,
        "image_std": STD,
        "exif": exported.trained.exif,
        "recipe": recipe,
    })
}

/// The card: what the model is, and how to use it.
fn card(exported: &Exported) -> String {
    let size = exported.trained.recipe.photo_size();
    let mut rows = String::new();
    for ((id, name), colour) in exported.names().iter().zip(exported.colours().values()) {
        rows += &format!(
            "| {id} | {} | `{}` |\n",
            name.as_str().unwrap_or_default().replace('|', "\\|"),
            colour.as_str().unwrap_or_default()
        );
    }
    format!(
        "---\nlibrary_name: picie\npipeline_tag: image-segmentation\ntags:\n- \
         unsupervised-semantic-segmentation\n---\n\n# Segments of photos\n\n{about}\n\nGive it \
         photos whose short side is {size} pixels, sides multiples of 32.\n\n| id | name | colour \
         |\n| ---: | --- | --- |\n{rows}\n```sh\npicie segment --checkpoint model.safetensors \
         --out segments PHOTO...   # picie\npython picie.py model.safetensors PHOTO                 \
         # PyTorch, torchvision, safetensors, Pillow\n```\n\n`config.json` holds all numbers of the \
         training.\n",
        about = exported.about(),
    )
}
