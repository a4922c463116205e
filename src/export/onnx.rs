//! The network and its classifier as an ONNX model, from the photo's bytes to labels.
//!
//! | | | |
//! | --- | --- | --- |
//! | input | `image` | u8 (n, height, width, 3), RGB as decoders give it |
//! | output | `labels` | i64 (n, height, width), the cluster of each pixel |
//! | output | `scores` | f32 (n, clusters, ⌈height/4⌉, ⌈width/4⌉), whose arg-max labels are |
//!
//! Weights keep torchvision's names. Batch norm stands for itself, as runtimes fold it.

use prost::Message;
use serde_json::json;

use super::Exported;
use super::builder::{Attr, Builder};
use super::proto::{Element, Entry, Model, Opset};
use crate::base::{Error, Result};
use crate::device::ops::Merge;
use crate::device::ops::norm::EPS;
use crate::device::ops::view::{MEAN, STD};
use crate::net::weights::Tensor;
use crate::net::{Architecture, FEATURES};

/// The version of ONNX's operators, and of the file that may hold them.
const OPSET: i64 = 17;
const IR: i64 = 8;

/// Grey of R, G and B, and its gradients along x and y, as `device::ops::view_sobel` has them.
const GREY: [f32; 3] = [0.299, 0.587, 0.114];
const SOBEL: [f32; 18] = [
    1.0, 0.0, -1.0, 2.0, 0.0, -2.0, 1.0, 0.0, -1.0, //
    1.0, 2.0, 1.0, 0.0, 0.0, 0.0, -1.0, -2.0, -1.0,
];

/// The least norm that features are divided by, as the head has it.
const LEAST_NORM: f32 = 1e-12;

/// The bytes of the model's file.
///
/// Errors: a parameter of the network is missing.
pub fn model(exported: &Exported) -> Result<Vec<u8>> {
    let graph = Writer { exported, to: Builder::default() }.graph()?;
    let entry = |key: &str, value: String| Entry { key: key.into(), value };
    let model = Model {
        ir_version: Some(IR),
        producer_name: "picie".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        doc_string: exported.about(),
        graph: Some(graph),
        opset_import: vec![Opset { domain: Some(String::new()), version: Some(OPSET) }],
        metadata_props: vec![
            entry("names", json!(exported.names()).to_string()),
            entry("colors", json!(exported.colours()).to_string()),
            entry("short_side", exported.trained.recipe.photo_size().to_string()),
            entry("recipe", json!(exported.trained.recipe).to_string()),
        ],
    };
    Ok(model.encode_to_vec())
}

struct Writer<'a> {
    exported: &'a Exported,
    to: Builder,
}

impl Writer<'_> {
    fn graph(mut self) -> Result<super::proto::Graph> {
        let clusters = self.exported.trained.recipe.clusters.to_string();
        self.to.input("image", Element::U8, &["n", "height", "width", "3"], "RGB");
        let x = self.picture();
        let stages = self.backbone(x)?;
        let features = self.pyramid(stages)?;
        self.labels(features);
        let doc = "the cluster of each pixel";
        self.to.output("labels", Element::I64, &["n", "height", "width"], doc);
        let sides = ["n", &clusters, "feature_height", "feature_width"];
        self.to.output("scores", Element::Float, &sides, "labels are their arg-max");
        Ok(self.to.finish("picie"))
    }

    /// The network's input (n, 3 or 5, height, width) from the photo's bytes.
    fn picture(&mut self) -> String {
        let (sobel, to) = (self.architecture().sobel, &mut self.to);
        let float = [("to", Attr::Int(Element::Float as i64))];
        let x = to.op("Cast", "pixels", &["image"], &float);
        let x = to.op("Transpose", "planes", &[&x], &[("perm", Attr::Ints(&[0, 3, 1, 2]))]);
        let white = to.floats("white", &[], &[255.0]);
        let unit = to.op("Div", "colours", &[&x, &white], &[]);
        let mean = to.floats("mean", &[3, 1, 1], &MEAN);
        let std = to.floats("std", &[3, 1, 1], &STD);
        let x = to.op("Sub", "centred", &[&unit, &mean], &[]);
        let x = to.op("Div", "normalised", &[&x, &std], &[]);
        if !sobel {
            return x;
        }
        let weights = to.floats("grey.weight", &[1, 3, 1, 1], &GREY);
        let grey = to.op("Conv", "grey", &[&unit, &weights], &[]);
        let kernels = to.floats("sobel.weight", &[2, 1, 3, 3], &SOBEL);
        let pads = [("pads", Attr::Ints(&[1; 4]))];
        let edges = to.op("Conv", "sobel", &[&grey, &kernels], &pads);
        to.op("Concat", "input", &[&x, &edges], &[("axis", Attr::Int(1))])
    }

    fn architecture(&self) -> Architecture {
        self.exported.trained.recipe.architecture
    }

    /// The outputs of the stages.
    fn backbone(&mut self, x: String) -> Result<Vec<String>> {
        let Architecture { backbone, levels, .. } = self.architecture();
        let stride = backbone.stem.2;
        let x = self.conv_norm("conv1", "bn1", &x, stride)?;
        let x = self.to.op("Relu", "relu1", &[&x], &[]);
        let window = [
            ("kernel_shape", Attr::Ints(&[3, 3])),
            ("strides", Attr::Ints(&[2, 2])),
            ("pads", Attr::Ints(&[1; 4])),
        ];
        let mut x = self.to.op("MaxPool", "maxpool", &[&x], &window);
        let mut stages = Vec::new();
        for (s, stage) in (1..).zip(&backbone.stages[..levels]) {
            for b in 0..stage.blocks {
                let stride = if b == 0 { stage.stride } else { 1 };
                x = self.block(&format!("layer{s}.{b}"), &x, stride)?;
            }
            stages.push(x.clone());
        }
        Ok(stages)
    }

    /// relu(convolutions(x) + shortcut).
    fn block(&mut self, name: &str, x: &str, stride: usize) -> Result<String> {
        let links = self.architecture().backbone.block;
        let mut y = x.to_string();
        for (i, link) in (1..).zip(links) {
            let stride = if link.strided { stride } else { 1 };
            y = self.conv_norm(&format!("{name}.conv{i}"), &format!("{name}.bn{i}"), &y, stride)?;
            if i < links.len() {
                y = self.to.op("Relu", &format!("{name}.relu{i}"), &[&y], &[]);
            }
        }
        let down = format!("{name}.downsample");
        let shortcut = match tensor(self.exported, &format!("{down}.0.weight")) {
            Ok(_) => self.conv_norm(&format!("{down}.0"), &format!("{down}.1"), x, stride)?,
            Err(_) => x.to_string(),
        };
        let sum = self.to.op("Add", &format!("{name}.sum"), &[&y, &shortcut], &[]);
        Ok(self.to.op("Relu", name, &[&sum], &[]))
    }

    /// A convolution and its batch norm.
    fn conv_norm(&mut self, conv: &str, norm: &str, x: &str, stride: usize) -> Result<String> {
        let y = self.conv(conv, x, stride, false)?;
        let mut inputs = vec![y];
        for what in ["weight", "bias", "running_mean", "running_var"] {
            inputs.push(self.parameter(&format!("{norm}.{what}"))?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let epsilon = [("epsilon", Attr::Float(EPS))];
        Ok(self.to.op("BatchNormalization", norm, &inputs, &epsilon))
    }

    fn conv(&mut self, name: &str, x: &str, stride: usize, bias: bool) -> Result<String> {
        let side = tensor(self.exported, &format!("{name}.weight"))?.0.shape[3];
        let weight = self.parameter(&format!("{name}.weight"))?;
        let mut inputs = vec![x, &weight];
        let bias = if bias { Some(self.parameter(&format!("{name}.bias"))?) } else { None };
        inputs.extend(bias.as_deref());
        let attributes = [
            ("strides", Attr::Ints(&[stride as i64; 2])),
            ("pads", Attr::Ints(&[side as i64 / 2; 4])),
        ];
        Ok(self.to.op("Conv", name, &inputs, &attributes))
    }

    /// F̂, the merged features (`device::ops::head` has the formulas).
    fn pyramid(&mut self, stages: Vec<String>) -> Result<String> {
        let mut laterals = Vec::new();
        for (i, stage) in (2..).zip(&stages) {
            laterals.push(self.conv(&format!("fpn.lateral{i}"), stage, 1, true)?);
        }
        let recipe = &self.exported.trained.recipe;
        let (merge, unit) = (recipe.merge, recipe.unit());
        let to = &mut self.to;
        let beside = |to: &mut Builder, i: usize, lateral: &str| {
            to.op("Shape", &format!("p{i}.size"), &[lateral], &[("start", Attr::Int(2))])
        };
        let mut sum;
        if merge == Merge::Direct {
            sum = laterals.remove(0);
            let size = beside(to, 2, &sum);
            for (i, lateral) in (3..).zip(&laterals) {
                let up = resize(to, &format!("p{i}.up"), lateral, &size);
                sum = to.op("Add", &format!("p2_{i}"), &[&sum, &up], &[]);
            }
        } else {
            sum = laterals.pop().expect("a network has stages");
            for (i, lateral) in (2..).zip(&laterals).collect::<Vec<_>>().into_iter().rev() {
                let size = beside(to, i, lateral);
                let up = resize(to, &format!("p{i}.below"), &sum, &size);
                sum = to.op("Add", &format!("p{i}"), &[lateral, &up], &[]);
            }
        }
        if !unit {
            return Ok(sum);
        }
        let norm = to.op("ReduceL2", "norm", &[&sum], &[("axes", Attr::Ints(&[1]))]);
        let least = to.floats("least norm", &[], &[LEAST_NORM]);
        let norm = to.op("Max", "divisor", &[&norm, &least], &[]);
        Ok(to.op("Div", "features", &[&sum, &norm], &[]))
    }

    /// Scores, and labels by them.
    fn labels(&mut self, features: String) {
        let (Exported { w, b, .. }, k) = (self.exported, self.exported.trained.recipe.clusters);
        let to = &mut self.to;
        let w = to.floats("classifier.weight", &[k, FEATURES, 1, 1], w);
        let b = to.floats("classifier.bias", &[k], b);
        let scores = to.op("Conv", "scores", &[&features, &w, &b], &[]);
        let sides = [("start", Attr::Int(1)), ("end", Attr::Int(3))];
        let size = to.op("Shape", "image size", &["image"], &sides);
        let scores = resize(to, "label scores", &scores, &size);
        let axis = [("axis", Attr::Int(1)), ("keepdims", Attr::Int(0))];
        to.op("ArgMax", "labels", &[&scores], &axis);
    }

    /// A parameter as a constant of its name.
    fn parameter(&mut self, name: &str) -> Result<String> {
        let (tensor, values) = tensor(self.exported, name)?;
        Ok(self.to.floats(name, &tensor.shape, values))
    }
}

/// A parameter of the network, and its numbers.
fn tensor<'a>(exported: &'a Exported, name: &str) -> Result<(&'a Tensor, &'a [f32])> {
    let tensor = exported.trained.weights.tensors.get(name);
    tensor.and_then(|tensor| Some((tensor, tensor.f32()?))).ok_or_else(|| {
        Error::input(format!("{name} is missing"), "use the checkpoint of a trained run")
    })
}

/// A map (n, channels, …) at another height and width, bilinear with align_corners = false.
fn resize(to: &mut Builder, name: &str, x: &str, size: &str) -> String {
    let sides = [("start", Attr::Int(0)), ("end", Attr::Int(2))];
    let outer = to.op("Shape", &format!("{name}.outer"), &[x], &sides);
    let axis = [("axis", Attr::Int(0))];
    let sizes = to.op("Concat", &format!("{name}.sizes"), &[&outer, size], &axis);
    let how = [
        ("mode", Attr::Text("linear")),
        ("coordinate_transformation_mode", Attr::Text("half_pixel")),
    ];
    to.op("Resize", name, &[x, "", "", &sizes], &how)
}
