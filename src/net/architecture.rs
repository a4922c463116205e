//! What a network is made of: a backbone's stages, and the table of its parameters, names and
//! shapes as torch has them.

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};
use crate::device::ALIGN;
use crate::net::FEATURES;
use crate::net::backbone::{Backbone, RESNET18, Stage};

/// What may differ between networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Architecture {
    /// Its residual network. NOTE: files name no ResNet-18, which all were before there was a
    /// choice: old ones are read, and equal runs give the same bytes as ever.
    #[serde(default, skip_serializing_if = "Backbone::is_default")]
    pub backbone: &'static Backbone,
    /// Stages that exist, each with its lateral: 4, or 2 (IIC-res12: stem, layer1, layer2), or 1.
    pub levels: usize,
    /// Whether a picture's Sobel gradient is concatenated to it: 5 input channels instead of 3.
    pub sobel: bool,
}

impl Architecture {
    /// The paper's network.
    pub const RESNET18: Self = Architecture::of(&RESNET18);

    /// All of a backbone, on pictures alone.
    pub const fn of(backbone: &'static Backbone) -> Self {
        Architecture { backbone, levels: 4, sobel: false }
    }

    /// Refuses what no network is made of.
    pub fn check(self) -> Result<()> {
        if (1..=self.backbone.stages.len()).contains(&self.levels) {
            return Ok(());
        }
        Err(Error::input(format!("a network of {} levels", self.levels), "use 1 to 4 levels"))
    }

    /// Channels of the picture, as conv1's weight has them in files.
    pub fn channels(self) -> usize {
        if self.sobel { 5 } else { 3 }
    }

    /// Input channels in memory: those of the picture, then zeros, so that pixels are aligned.
    pub fn input(self) -> usize {
        if self.sobel { 8 } else { 4 }
    }

    /// The stages that exist.
    fn stages(self) -> impl Iterator<Item = &'static Stage> {
        self.backbone.stages.iter().take(self.levels)
    }
}

/// A trainable tensor.
#[derive(Clone, Debug)]
pub(super) struct Param {
    /// torchvision's name, `fpn.lateral2` … `fpn.lateral5` for the pyramid.
    pub name: String,
    /// torch's shape: (k, c, r, r) for a convolution, (k) for a vector.
    pub shape: Vec<usize>,
    /// First element in each of the parameter blocks; the memory is (k, r, r, c), conv1's c padded
    /// to [`Architecture::input`].
    pub offset: usize,
    pub len: usize,
}

/// A convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conv {
    /// Input channels in memory.
    pub c: usize,
    pub k: usize,
    pub r: usize,
    pub stride: usize,
    /// Index of the weight among the parameters; gamma and beta, or the bias, follow it.
    pub weight: usize,
}

/// A convolution with batch norm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    pub conv: Conv,
    /// Index among the norms.
    pub norm: usize,
}

/// A residual block: its units one after the other, and a shortcut that is added at the last.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub chain: Vec<Unit>,
    /// What makes the shortcut of the block's input where shapes differ; else it is the input.
    pub down: Option<Unit>,
}

pub(super) struct Units {
    pub stem: Unit,
    pub stages: Vec<Vec<Block>>,
    pub laterals: Vec<Conv>,
}

/// Parameters and norms in the order of memory, and the units that refer to them by number.
pub(super) struct Table {
    pub params: Vec<Param>,
    /// Name and channels.
    pub norms: Vec<(String, usize)>,
    /// Elements of a parameter block.
    pub len: usize,
    pub units: Units,
}

/// A table as it grows.
#[derive(Default)]
struct Rows {
    params: Vec<Param>,
    norms: Vec<(String, usize)>,
    len: usize,
}

impl Rows {
    /// A parameter of `len` elements in memory.
    fn param(&mut self, name: String, shape: Vec<usize>, len: usize) -> usize {
        self.params.push(Param { name, shape, offset: self.len, len });
        // Every parameter begins on a cache line, in blocks of two-byte elements too.
        self.len += len.next_multiple_of(ALIGN / 2);
        self.params.len() - 1
    }

    /// The weight of a convolution of `c` channels, in memory `padded`.
    fn conv(
        &mut self,
        name: &str,
        (c, padded): (usize, usize),
        (k, r, stride): (usize, usize, usize),
    ) -> Conv {
        let weight = self.param(format!("{name}.weight"), vec![k, c, r, r], k * r * r * padded);
        Conv { c: padded, k, r, stride, weight }
    }

    /// A convolution and its norm.
    fn unit(
        &mut self,
        (conv, norm): (&str, &str),
        channels: (usize, usize),
        shape: (usize, usize, usize),
    ) -> Unit {
        let conv = self.conv(conv, channels, shape);
        self.param(format!("{norm}.weight"), vec![conv.k], conv.k);
        self.param(format!("{norm}.bias"), vec![conv.k], conv.k);
        self.norms.push((norm.to_string(), conv.k));
        Unit { conv, norm: self.norms.len() - 1 }
    }

    /// The block called `name`, on `c` channels.
    fn block(
        &mut self,
        name: &str,
        c: usize,
        backbone: &Backbone,
        stage: &Stage,
        b: usize,
    ) -> Block {
        let (stride, k) = (if b == 0 { stage.stride } else { 1 }, backbone.channels(stage));
        let (mut chain, mut channels) = (Vec::new(), c);
        for (i, link) in (1..).zip(backbone.block) {
            let names = (&*format!("{name}.conv{i}"), &*format!("{name}.bn{i}"));
            let stride = if link.strided { stride } else { 1 };
            let width = link.widths * stage.width;
            chain.push(self.unit(names, (channels, channels), (width, link.r, stride)));
            channels = width;
        }
        let down = (stride > 1 || c != k).then(|| {
            let names = (&*format!("{name}.downsample.0"), &*format!("{name}.downsample.1"));
            self.unit(names, (c, c), (k, 1, stride))
        });
        Block { chain, down }
    }

    /// The lateral of the stage number `s` with `c` channels.
    fn lateral(&mut self, s: usize, c: usize) -> Conv {
        let name = format!("fpn.lateral{}", s + 2);
        let conv = self.conv(&name, (c, c), (FEATURES, 1, 1));
        self.param(format!("{name}.bias"), vec![FEATURES], FEATURES);
        conv
    }
}

impl Table {
    pub fn new(architecture: Architecture) -> Self {
        let (mut rows, backbone) = (Rows::default(), architecture.backbone);
        let input = (architecture.channels(), architecture.input());
        let stem = rows.unit(("conv1", "bn1"), input, backbone.stem);
        let mut c = stem.conv.k;
        let mut stages = Vec::new();
        for (s, stage) in (1..).zip(architecture.stages()) {
            let block = |b| {
                let block = rows.block(&format!("layer{s}.{b}"), c, backbone, stage, b);
                c = backbone.channels(stage);
                block
            };
            stages.push((0..stage.blocks).map(block).collect());
        }
        let lateral = |(s, stage)| rows.lateral(s, backbone.channels(stage));
        let laterals = architecture.stages().enumerate().map(lateral).collect();
        let Rows { params, norms, len } = rows;
        Table { params, norms, len, units: Units { stem, stages, laterals } }
    }
}

/// Name and torch shape of every tensor that a weight file of such a network holds, running
/// statistics included.
pub fn expected(architecture: Architecture) -> Vec<(String, Vec<usize>)> {
    let Table { params, norms, .. } = Table::new(architecture);
    let running = norms.into_iter().flat_map(|(name, k)| {
        ["running_mean", "running_var"].map(|stat| (format!("{name}.{stat}"), vec![k]))
    });
    params.into_iter().map(|p| (p.name, p.shape)).chain(running).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::backbone::{RESNET34, RESNET50};

    /// Parameters of the backbone and of the laterals.
    fn counts(architecture: Architecture) -> (usize, usize) {
        let params =
            expected(architecture).into_iter().filter(|(name, _)| !name.contains("running"));
        let (laterals, backbone): (Vec<_>, Vec<_>) =
            params.partition(|(name, _)| name.starts_with("fpn."));
        let count = |params: Vec<(String, Vec<usize>)>| {
            params.iter().map(|(_, s)| s.iter().product::<usize>()).sum()
        };
        (count(backbone), count(laterals))
    }

    #[test]
    fn the_table_has_the_papers_size() {
        // torchvision's ResNet-18 without fc, and four biased 1×1 convolutions.
        assert_eq!(counts(Architecture::RESNET18), (11_176_512, 123_392));
        assert_eq!(expected(Architecture::RESNET18)[3].0, "layer1.0.conv1.weight");
    }

    /// torchvision's without fc (1,000 classes), and laterals on 3,840 channels for a ResNet-50.
    #[test]
    fn deeper_tables_have_torchvisions_size() {
        let fc = |channels: usize| channels * 1000 + 1000;
        assert_eq!(counts(Architecture::of(&RESNET34)), (21_797_672 - fc(512), 123_392));
        let laterals = (256 + 512 + 1024 + 2048) * 128 + 4 * 128;
        assert_eq!(counts(Architecture::of(&RESNET50)), (25_557_032 - fc(2048), laterals));
    }

    /// Files from before there was a choice name no backbone, and equal runs give the same bytes.
    #[test]
    fn a_resnet_18_has_no_name_in_files() {
        for (text, backbone) in [
            (r#"{"levels":4,"sobel":false}"#, &RESNET18),
            (r#"{"backbone":"resnet50","levels":4,"sobel":false}"#, &RESNET50),
        ] {
            let architecture = serde_json::from_str::<Architecture>(text).unwrap();
            assert_eq!(architecture, Architecture::of(backbone));
            assert_eq!(serde_json::to_string(&architecture).unwrap(), text);
        }
    }

    #[test]
    fn fewer_stages_and_more_channels_count_as_they_should() {
        let rgb = |levels| counts(Architecture { levels, ..Architecture::RESNET18 });
        // 9,408 + 128 of the stem, 147,968 of layer1, 525,568 of layer2.
        assert_eq!(rgb(1), (157_504, 64 * 128 + 128));
        assert_eq!(rgb(2), (683_072, (64 + 128) * 128 + 2 * 128));
        let sobel = Architecture { levels: 2, sobel: true, ..Architecture::RESNET18 };
        assert_eq!(counts(sobel).0, 683_072 + 64 * 2 * 49);
        let (table, rgb) = (Table::new(sobel), Table::new(Architecture { sobel: false, ..sobel }));
        assert_eq!(table.units.stem.conv.c, 8);
        assert_eq!((table.params[0].len, rgb.params[0].len), (64 * 49 * 8, 64 * 49 * 4));
    }
}
