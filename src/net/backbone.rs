//! Residual networks as data. Parameter names, shapes and the order of ops follow from these
//! constants (`architecture.rs`, `program.rs`); a new network is one constant and its place in
//! [`Backbone::ALL`].

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A ResNet: a stem (a convolution with batch norm and ReLU, then 3×3 max-pooling of stride 2) and
/// four stages of residual blocks, named as torchvision names them.
#[derive(Debug, PartialEq, Eq)]
pub struct Backbone {
    /// What `--backbone` and files call it, which is torchvision's name, too.
    pub name: &'static str,
    /// What prose calls it.
    pub title: &'static str,
    /// The stem's convolution: output channels, side of the kernel, stride.
    pub stem: (usize, usize, usize),
    /// The convolutions of a residual block, one after the other.
    pub block: &'static [Link],
    pub stages: [Stage; 4],
}

/// A convolution of a residual block; batch norm and ReLU follow it. At the last one the block's
/// shortcut is added before the ReLU.
#[derive(Debug, PartialEq, Eq)]
pub struct Link {
    /// Side of the kernel.
    pub r: usize,
    /// Whether it has the stride of a stage's first block; the others have stride 1.
    pub strided: bool,
    /// Output channels, in multiples of the stage's width.
    pub widths: usize,
}

/// Blocks of one width.
#[derive(Debug, PartialEq, Eq)]
pub struct Stage {
    pub width: usize,
    pub blocks: usize,
    /// Stride of the first block.
    pub stride: usize,
}

/// Two 3×3 convolutions.
const BASIC: &[Link] =
    &[Link { r: 3, strided: true, widths: 1 }, Link { r: 3, strided: false, widths: 1 }];

/// A 3×3 convolution between two of 1×1. NOTE: the 3×3 one has the stride, as in torchvision's
/// weights ("v1.5"); in the paper the first 1×1 has it, with the same names and shapes.
const BOTTLENECK: &[Link] = &[
    Link { r: 1, strided: false, widths: 1 },
    Link { r: 3, strided: true, widths: 1 },
    Link { r: 1, strided: false, widths: 4 },
];

/// The four stages of every ResNet, with their numbers of blocks.
const fn stages(blocks: [usize; 4]) -> [Stage; 4] {
    [
        Stage { width: 64, blocks: blocks[0], stride: 1 },
        Stage { width: 128, blocks: blocks[1], stride: 2 },
        Stage { width: 256, blocks: blocks[2], stride: 2 },
        Stage { width: 512, blocks: blocks[3], stride: 2 },
    ]
}

pub static RESNET18: Backbone = Backbone {
    name: "resnet18",
    title: "ResNet-18",
    stem: (64, 7, 2),
    block: BASIC,
    stages: stages([2, 2, 2, 2]),
};

pub static RESNET34: Backbone = Backbone {
    name: "resnet34",
    title: "ResNet-34",
    stem: (64, 7, 2),
    block: BASIC,
    stages: stages([3, 4, 6, 3]),
};

pub static RESNET50: Backbone = Backbone {
    name: "resnet50",
    title: "ResNet-50",
    stem: (64, 7, 2),
    block: BOTTLENECK,
    stages: stages([3, 4, 6, 3]),
};

impl Backbone {
    /// Every backbone.
    pub const ALL: [&Backbone; 3] = [&RESNET18, &RESNET34, &RESNET50];

    /// Output channels of a stage's blocks.
    pub fn channels(&self, stage: &Stage) -> usize {
        self.block.last().map_or(0, |link| link.widths * stage.width)
    }

    /// Whether it is the one that is meant where a file names none.
    pub(super) fn is_default(&self) -> bool {
        self == <&Backbone>::default()
    }
}

/// The paper's.
impl Default for &'static Backbone {
    fn default() -> Self {
        &RESNET18
    }
}

/// A backbone is its name, in files and on the command line.
impl Serialize for Backbone {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name)
    }
}

impl<'de> Deserialize<'de> for &'static Backbone {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        Backbone::ALL
            .into_iter()
            .find(|backbone| backbone.name == name)
            .ok_or_else(|| de::Error::custom(format!("no backbone is called {name:?}")))
    }
}

impl ValueEnum for &'static Backbone {
    fn value_variants<'a>() -> &'a [Self] {
        &Backbone::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::STRIDE;

    /// What the heads, the crops and the label maps count on.
    #[test]
    fn every_backbone_halves_pictures_as_the_pyramid_wants() {
        for backbone in Backbone::ALL {
            let (_, _, stem) = backbone.stem;
            let pooled = 2 * stem;
            assert_eq!(pooled * backbone.stages[0].stride, STRIDE, "{}", backbone.name);
            assert!(backbone.stages[1..].iter().all(|s| s.stride == 2), "{}", backbone.name);
            let strided = backbone.block.iter().filter(|link| link.strided).count();
            assert_eq!(strided, 1, "{}", backbone.name);
        }
    }

    #[test]
    fn a_backbone_is_its_name_in_files() {
        for backbone in Backbone::ALL {
            let text = serde_json::to_string(backbone).unwrap();
            assert_eq!(text, format!("{:?}", backbone.name));
            assert_eq!(serde_json::from_str::<&'static Backbone>(&text).unwrap(), backbone);
        }
        let unknown = serde_json::from_str::<&'static Backbone>("\"vgg16\"").unwrap_err();
        assert!(unknown.to_string().contains("vgg16"), "{unknown}");
    }
}
