//! Whose weights a file holds, and the engine's names for them.
//!
//! | here                        | torchvision     | released PiCIE                              |
//! |-----------------------------|-----------------|---------------------------------------------|
//! | `layer1.0.conv1.weight`, …  | the same        | `state_dict.module.backbone.` + the same    |
//! | `fpn.lateral2` (res2, 1/4)  |                 | `state_dict.module.decoder.layer4`          |
//! | `fpn.lateral3`              |                 | `state_dict.module.decoder.layer3`          |
//! | `fpn.lateral4`              |                 | `state_dict.module.decoder.layer2`          |
//! | `fpn.lateral5` (res5, 1/32) |                 | `state_dict.module.decoder.layer1`          |
//! | `classifier1`, `classifier2`|                 | `classifier1_state_dict.module`, `…2…`      |
//!
//! torchvision's names may stand under any one prefix, as training programs write them: of a
//! checkpoint's dict (`model.`, `state_dict.`), of a wrapper (`module.`, `_orig_mod.`, `model.`) or
//! of a method (`backbone.`, `module.encoder_q.`, `teacher.backbone.`). What stands beside that
//! prefix is not looked at.
//!
//! Source: `train_picie.py` (what is saved) and `modules/fpn.py` (layers count from the coarsest
//! map) of the released code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::plausible::finite;
use super::recognise::recognise;
use super::{Tensor, Weights};
use crate::base::{Error, Result};
use crate::net::Backbone;

/// Where weights come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// An ImageNet classifier with torchvision's names; its `fc` is dropped, it has no `fpn`.
    Torchvision,
    /// A checkpoint of the released code: `epoch` counts finished epochs, `args` are its command
    /// line ("K_train", "arch", …).
    ReleasedPicie { epoch: Option<usize>, args: BTreeMap<String, String> },
    /// A file of this engine, which has metadata "picie".
    Picie,
}

/// Renames the tensors of `weights`, read from `path`, and holds them to `expected`: name and shape
/// of every parameter and running statistic of the network, under this engine's names.
///
/// Tensors are f32 in PyTorch's axis order; a classifier is (K, D, 1, 1) with an optional bias (K).
/// Files of this engine keep whatever tensors they have beside the network's; in others an unknown
/// tensor is an error.
///
/// Of torchvision's weights, the stages that the network does not have are left out.
///
/// Errors: several networks in one file, another backbone, another architecture (the first tensor
/// whose shape differs), missing tensors (`fpn.` may miss in [`Origin::Torchvision`] alone),
/// unknown tensors, a value that is not finite or a negative variance.
pub fn canonical(
    weights: Weights,
    path: &Path,
    expected: &[(String, Vec<usize>)],
) -> Result<(Weights, Origin)> {
    let Weights { tensors, metadata } = weights;
    let origin = origin(&tensors, &metadata);
    let mut tensors: BTreeMap<String, Tensor> = match origin {
        Origin::Picie => tensors,
        Origin::ReleasedPicie { .. } => {
            tensors.into_iter().filter_map(|(name, t)| Some((rename(&name)?, t))).collect()
        }
        Origin::Torchvision => {
            let prefix = prefix(&tensors).map_err(|several| ambiguous(path, &several))?;
            let inside = |name: &str| rename(name.strip_prefix(&prefix)?);
            tensors.into_iter().filter_map(|(name, t)| Some((inside(&name)?, t))).collect()
        }
    };
    if origin == Origin::Torchvision {
        for stage in ["layer1.", "layer2.", "layer3.", "layer4."] {
            if !expected.iter().any(|(name, _)| name.starts_with(stage)) {
                tensors.retain(|name, _| !name.starts_with(stage));
            }
        }
    }
    let wanted = recognise(expected.iter().map(|(name, shape)| (&**name, &**shape)));
    let fits = Fits { path, tensors: &tensors, origin: &origin, wanted };
    fits.backbone()?;
    fits.shapes(expected)?;
    fits.complete(expected)?;
    fits.classifiers(expected)?;
    if origin != Origin::Picie {
        fits.known(expected)?;
    }
    let weights = Weights { tensors, metadata };
    finite(&weights, path)?;
    Ok((weights, origin))
}

/// The backbone that tensors are of, whoever named them.
pub fn backbone(tensors: &BTreeMap<String, Tensor>) -> Option<&'static Backbone> {
    let prefix = prefix(tensors).unwrap_or_default();
    let inside = |name: &str| rename(name.strip_prefix(&prefix)?);
    let named: Vec<(String, &[usize])> =
        tensors.iter().filter_map(|(name, t)| Some((inside(name)?, &*t.shape))).collect();
    recognise(named.iter().map(|(name, shape)| (&**name, *shape)))
}

fn origin(tensors: &BTreeMap<String, Tensor>, metadata: &BTreeMap<String, String>) -> Origin {
    let has = |part: &str| tensors.keys().any(|name| name.contains(part));
    // Other networks have decoders, too, but not of these four layers.
    let ends = |end: &String| tensors.keys().any(|name| name.ends_with(end));
    let pyramid = (1..=4).map(|i| format!("decoder.layer{i}.weight")).all(|end| ends(&end));
    if metadata.contains_key("picie") {
        Origin::Picie
    } else if pyramid || has("classifier1_state_dict.") {
        let args = metadata
            .iter()
            .filter_map(|(k, v)| Some((k.strip_prefix("args.")?.to_string(), v.clone())));
        Origin::ReleasedPicie {
            epoch: metadata.get("epoch").and_then(|e| e.parse().ok()),
            args: args.collect(),
        }
    } else {
        Origin::Torchvision
    }
}

/// Of two networks that one method keeps, the part of names that tells them apart: the one that is
/// used, and the one that only helps to train it.
const HELPERS: [(&str, &str); 4] = [
    ("encoder_q.", "encoder_k."),
    ("base_encoder.", "momentum_encoder."),
    ("teacher.", "student."),
    ("online", "target"),
];

/// What stands before the names of the one network in a file; empty if there is none. Of a network
/// and its helper the network counts.
///
/// Errors: the prefixes of several networks.
fn prefix(tensors: &BTreeMap<String, Tensor>) -> std::result::Result<String, Vec<String>> {
    let named = |name: &String| {
        let prefix = name.strip_suffix("conv1.weight")?;
        let begins = prefix.is_empty() || prefix.ends_with('.');
        let has = tensors.contains_key(&format!("{prefix}layer1.0.conv1.weight"));
        (begins && has).then(|| prefix.to_string())
    };
    let mut found: Vec<String> = tensors.keys().filter_map(named).collect();
    // Only one of the two may have been wrapped.
    let bare = |prefix: &str| prefix.replace("module.", "");
    for (used, helper) in HELPERS {
        let networks: Vec<String> = found.iter().map(|prefix| bare(prefix)).collect();
        found.retain(|prefix| {
            let used = bare(prefix).replacen(helper, used, 1);
            !prefix.contains(helper) || !networks.contains(&used)
        });
    }
    match found.len() {
        0 | 1 => Ok(found.pop().unwrap_or_default()),
        _ => Err(found),
    }
}

fn ambiguous(path: &Path, prefixes: &[String]) -> Error {
    let names: Vec<String> = prefixes.iter().map(|p| format!("{p}conv1.weight")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Error::file(
        path,
        format!("it holds {} networks: {}", names.len(), few(&names)),
        "in PyTorch, save the one that you want by itself",
    )
}

/// The engine's name for a tensor; `None` for one that it has no use for.
fn rename(name: &str) -> Option<String> {
    // "module." comes from training in DataParallel.
    let plain = |name: &str| name.strip_prefix("module.").unwrap_or(name).to_string();
    for classifier in ["classifier1", "classifier2"] {
        if let Some(rest) =
            name.strip_prefix(classifier).and_then(|n| n.strip_prefix("_state_dict."))
        {
            return Some(format!("{classifier}.{}", plain(rest)));
        }
    }
    let name = plain(name.strip_prefix("state_dict.").unwrap_or(name));
    let name = name.strip_prefix("backbone.").unwrap_or(&name);
    if name.starts_with("fc.") || name.ends_with(".num_batches_tracked") {
        return None;
    }
    for (layer, lateral) in [
        ("decoder.layer4.", 2),
        ("decoder.layer3.", 3),
        ("decoder.layer2.", 4),
        ("decoder.layer1.", 5),
    ] {
        if let Some(rest) = name.strip_prefix(layer) {
            return Some(format!("fpn.lateral{lateral}.{rest}"));
        }
    }
    Some(name.to_string())
}

struct Fits<'a> {
    path: &'a Path,
    tensors: &'a BTreeMap<String, Tensor>,
    origin: &'a Origin,
    /// The network's backbone, if its table is that of one.
    wanted: Option<&'static Backbone>,
}

impl Fits<'_> {
    fn error(&self, what: String) -> Error {
        let arch = match self.origin {
            Origin::ReleasedPicie { args, .. } => {
                args.get("arch").map(|a| format!(" (its args say arch={a})"))
            }
            _ => None,
        };
        let remedy = format!(
            "weights of a {} are accepted: torchvision's, the released PiCIE's with its FPN, or \
             this engine's own",
            self.wanted.map_or("network like this one", |backbone| backbone.title)
        );
        Error::file(self.path, what + &arch.unwrap_or_default(), remedy)
    }

    /// Refuses weights of another backbone, and says how to use them.
    fn backbone(&self) -> Result<()> {
        match (backbone(self.tensors), self.wanted) {
            (Some(got), Some(wanted)) if got != wanted => {
                let what = format!(
                    "these are weights of a {}, and the network is a {}",
                    got.title, wanted.title
                );
                Err(Error::file(self.path, what, format!("use --backbone {}", got.name)))
            }
            _ => Ok(()),
        }
    }

    /// conv1 reads the picture alone, or with its Sobel gradient.
    fn channels(&self, got: &[usize], want: &[usize]) -> Error {
        let what = format!("conv1.weight has shape {got:?}, wanted {want:?}");
        let remedy = match (got, want) {
            ([_, 3, ..], [_, 5, ..]) => "leave out --sobel: these weights read pictures alone",
            ([_, 5, ..], [_, 3, ..]) => {
                "add --sobel: these weights read pictures with their Sobel gradient"
            }
            _ => return self.error(what),
        };
        Error::file(self.path, what, remedy)
    }

    fn shapes(&self, expected: &[(String, Vec<usize>)]) -> Result<()> {
        for (name, want) in expected {
            let Some(tensor) = self.tensors.get(name) else { continue };
            let channels = |shape: &[usize]| shape.get(1).copied();
            if name == "conv1.weight" && channels(&tensor.shape) != channels(want) {
                return Err(self.channels(&tensor.shape, want));
            }
            if tensor.shape != *want {
                return Err(self.error(format!(
                    "tensor {name:?} has shape {:?}, wanted {want:?}",
                    tensor.shape
                )));
            }
            if tensor.f32().is_none() {
                return Err(self.error(format!("tensor {name:?} is not of floating point")));
            }
        }
        Ok(())
    }

    fn complete(&self, expected: &[(String, Vec<usize>)]) -> Result<()> {
        let optional = |name: &str| *self.origin == Origin::Torchvision && name.starts_with("fpn.");
        let names = expected.iter().map(|(name, _)| name.as_str());
        let missing: Vec<&str> =
            names.filter(|n| !self.tensors.contains_key(*n) && !optional(n)).collect();
        match missing.is_empty() {
            true => Ok(()),
            false => {
                Err(self.error(format!("{} tensors are missing: {}", missing.len(), few(&missing))))
            }
        }
    }

    /// (K, D, 1, 1) and (K), with the D of the network's features.
    fn classifiers(&self, expected: &[(String, Vec<usize>)]) -> Result<()> {
        let d = expected
            .iter()
            .find(|(name, _)| name == "fpn.lateral2.bias")
            .map(|(_, shape)| shape[0]);
        for classifier in ["classifier1", "classifier2"] {
            let weight = self.tensors.get(&format!("{classifier}.weight"));
            let bias = self.tensors.get(&format!("{classifier}.bias"));
            let fits = match (weight.map(|w| w.shape.as_slice()), bias.map(|b| b.shape.as_slice()))
            {
                (None, None) => true,
                (Some(&[_, c, 1, 1]), None) => Some(c) == d,
                (Some(&[k, c, 1, 1]), Some(&[n])) => Some(c) == d && n == k,
                _ => false,
            };
            if !fits || [weight, bias].into_iter().flatten().any(|t| t.f32().is_none()) {
                let shapes = [weight, bias].map(|t| t.map(|t| &t.shape));
                let want = d.unwrap_or(0);
                return Err(self.error(format!(
                    "{classifier} has weight and bias of shape {shapes:?}, wanted f32 [K, {want}, 1, 1] and [K]"
                )));
            }
        }
        Ok(())
    }

    fn known(&self, expected: &[(String, Vec<usize>)]) -> Result<()> {
        let mut known: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        known.extend([
            "classifier1.weight",
            "classifier1.bias",
            "classifier2.weight",
            "classifier2.bias",
        ]);
        let unknown: Vec<&str> =
            self.tensors.keys().map(String::as_str).filter(|n| !known.contains(n)).collect();
        match unknown.is_empty() {
            true => Ok(()),
            false => {
                Err(self.error(format!("{} tensors are unknown: {}", unknown.len(), few(&unknown))))
            }
        }
    }
}

/// The first three of `names`.
fn few(names: &[&str]) -> String {
    let rest = if names.len() > 3 { ", …" } else { "" };
    names[..names.len().min(3)].join(", ") + rest
}
