//! A folder as model hubs have it. `model.safetensors` is the checkpoint without what only resuming
//! needs, so picie reads it as well.

use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Exported, TORCH, write};
use crate::base::Result;
use crate::base::fs::write_atomic;
use crate::device::ops::view::{MEAN, STD};
use crate::net::weights::{Head, write_tensors};

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
    weights(&dir.join(FILES[1]), exported)
}

fn weights(path: &Path, exported: &Exported) -> Result<()> {
    let weights = &exported.trained.weights;
    let kept = |name: &str| !RESUMING.iter().any(|begin| name.starts_with(begin));
    let tensors: Vec<_> = weights.tensors.iter().filter(|(name, _)| kept(name)).collect();
    let heads: Vec<Head> = tensors
        .iter()
        .map(|(name, tensor)| Head { name, shape: &tensor.shape, element: tensor.data.element() })
        .collect();
    write_atomic(path, |out| {
        let put = &mut |i: usize, out: &mut dyn Write| out.write_all(tensors[i].1.data.bytes());
        write_tensors(&heads, &weights.metadata, out, put)
    })
}

/// What `config.json` holds, by the names that others use where there are such names.
fn config(exported: &Exported) -> Value {
    let recipe = &exported.trained.recipe;
    let each = |value: fn(&super::Named) -> Value| -> Map<String, Value> {
        let all = exported.segments.iter().enumerate();
        all.map(|(id, segment)| (id.to_string(), value(segment))).collect()
    };
    let ids = exported.segments.iter().enumerate();
    let ids: Map<String, Value> = ids.map(|(id, s)| (s.name.clone(), json!(id))).collect();
    json!({
        "model_type": "picie",
        "architectures": ["Picie"],
        "picie_version": env!("CARGO_PKG_VERSION"),
        "num_labels": exported.segments.len(),
        "id2label": each(|segment| json!(segment.name)),
        "label2id": ids,
        "id2color": each(|segment| json!(segment.hex())),
        "short_side": exported.size,
        "image_mean": MEAN,
        "image_std": STD,
        "exif": exported.trained.exif,
        "recipe": recipe,
    })
}

/// The card: what the model is, and how to use it.
fn card(exported: &Exported) -> String {
    let Exported { segments, size, .. } = exported;
    let mut rows = String::new();
    for (id, segment) in segments.iter().enumerate() {
        rows += &format!("| {id} | {} | `{}` |\n", segment.name, segment.hex());
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
