//! A trained network for other programs: an ONNX model, a PyTorch script, a folder as model hubs
//! have it.
//!
//! ```text
//! onnx ─ builder ─ proto     from the photo's bytes to labels, in one file
//! torch.py                   the same in PyTorch, from a checkpoint
//! hub                        config.json, model.safetensors, a card, and torch.py
//! ```

mod builder;
pub mod hub;
pub mod onnx;
mod proto;

use std::path::Path;

use serde_json::{Map, Value};

use crate::base::Result;
use crate::device::cpu::Cpu;
use crate::device::{Engine, Layout};
use crate::recipe::Method;
use crate::train::{Loaded, Trained};

/// The script that reads a checkpoint with PyTorch.
pub const TORCH: &str = include_str!("torch.py");

/// Everything that is exported of a trained network.
pub struct Exported {
    pub trained: Trained,
    /// (clusters, FEATURES), what features are multiplied by.
    pub w: Vec<f32>,
    /// (clusters), what is added then.
    pub b: Vec<f32>,
}

impl Exported {
    /// What a legend calls each cluster, by its number as JSON has it.
    fn names(&self) -> Map<String, Value> {
        let all = self.trained.segments.iter().enumerate();
        all.map(|(id, s)| (id.to_string(), s.name.clone().unwrap_or(s.title(id)).into())).collect()
    }

    /// The colour of each cluster as web pages write it.
    fn colours(&self) -> Map<String, Value> {
        let all = self.trained.segments.iter().enumerate();
        all.map(|(id, segment)| (id.to_string(), segment.hex().into())).collect()
    }

    /// Takes the classifier's numbers from the CPU engine, whose scores they are.
    ///
    /// Errors: there is not enough memory for the network.
    pub fn new(trained: Trained) -> Result<Self> {
        let dev: &mut dyn Engine = &mut Cpu::new();
        let mut layout = Layout::new(dev.dtype());
        let loaded = Loaded::plan(&mut layout, &trained.recipe);
        dev.reserve(&layout)?;
        let classifier = trained.load(dev, &loaded)?;
        let (w, b) = (dev.read(classifier.w)?, dev.read(classifier.b)?);
        Ok(Exported { trained, w, b })
    }

    /// A sentence on the network.
    pub fn about(&self) -> String {
        let recipe = &self.trained.recipe;
        let method = match recipe.method {
            Method::Picie => "PiCIE",
            Method::Mdc => "MDC",
            Method::Iic => "IIC",
            Method::Supervised => "cross-entropy",
        };
        format!(
            "Segments photos into {} clusters: a {} with a feature pyramid, trained by {method}.",
            recipe.clusters, recipe.architecture.backbone.title
        )
    }
}

/// Writes a text file, or fails with its name.
fn write(path: &Path, text: &str) -> Result<()> {
    crate::base::fs::write_atomic(path, |out| out.write_all(text.as_bytes()))
}

/// Writes [`TORCH`].
///
/// Errors: the file cannot be written.
pub fn torch(path: &Path) -> Result<()> {
    write(path, TORCH)
}
