//! What a network is made of: its stages and the table of its parameters, names and shapes as torch
//! has them.

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};
use crate::device::arena::ALIGN;
use crate::net::FEATURES;

/// Channels of the stages res2..res5.
const STAGES: [usize; 4] = [64, 128, 256, 512];

/// What may differ between networks; the stages themselves are ResNet-18's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Architecture {
    /// Stages that exist, each with its lateral: 4, or 2 (IIC-res12: stem, layer1, layer2), or 1.
    pub levels: usize,
    /// Whether a picture's Sobel gradient is concatenated to it: 5 input channels instead of 3.
    pub sobel: bool,
}

impl Architecture {
    pub const RESNET18: Self = Architecture { levels: 4, sobel: false };

    /// What no network is made of.
    pub fn check(self) -> Result<()> {
        if (1..=STAGES.len()).contains(&self.levels) {
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
}

/// A trainable tensor.
#[derive(Clone, Debug)]
pub(super) struct Param {
    /// torchvision's name, `fpn.lateral2` … `fpn.lateral5` for the pyramid.
    pub name: String,
    /// torch's shape: (k, c, r, r) of a convolution, (k) of a vector.
    pub shape: Vec<usize>,
    /// First element in each of the parameter blocks; the memory is (k, r, r, c), conv1's c padded
    /// to [`Architecture::input`].
    pub offset: usize,
    pub len: usize,
}

/// A convolution and what follows it.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    /// Input channels in memory.
    pub c: usize,
    pub k: usize,
    pub r: usize,
    pub stride: usize,
    /// Index of the weight among the parameters; gamma and beta, or the bias, follow it.
    pub weight: usize,
    /// Index among the norms.
    pub norm: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Block {
    pub conv1: Unit,
    pub conv2: Unit,
    pub down: Option<Unit>,
}

pub(super) struct Units {
    pub stem: Unit,
    pub stages: Vec<[Block; 2]>,
    pub laterals: Vec<Unit>,
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

    /// A convolution of `c` channels, in memory `padded`, and its norm.
    fn conv_norm(
        &mut self,
        (conv, norm): (&str, &str),
        (c, padded): (usize, usize),
        (k, r, stride): (usize, usize, usize),
    ) -> Unit {
        let weight = self.param(format!("{conv}.weight"), vec![k, c, r, r], k * r * r * padded);
        self.param(format!("{norm}.weight"), vec![k], k);
        self.param(format!("{norm}.bias"), vec![k], k);
        self.norms.push((norm.to_string(), k));
        Unit { c: padded, k, r, stride, weight, norm: self.norms.len() - 1 }
    }

    /// Block `b` of stage `s`, of `c` channels to `k`.
    fn block(&mut self, s: usize, b: usize, c: usize, k: usize) -> Block {
        let name = format!("layer{}.{b}", s + 1);
        let stride = if s > 0 && b == 0 { 2 } else { 1 };
        let mut unit = |conv: &str, norm: &str, c, shape| {
            self.conv_norm((&format!("{name}.{conv}"), &format!("{name}.{norm}")), (c, c), shape)
        };
        let conv1 = unit("conv1", "bn1", c, (k, 3, stride));
        let conv2 = unit("conv2", "bn2", k, (k, 3, 1));
        let down = (stride == 2).then(|| unit("downsample.0", "downsample.1", c, (k, 1, 2)));
        Block { conv1, conv2, down }
    }

    fn lateral(&mut self, s: usize, c: usize) -> Unit {
        let weight = self.param(
            format!("fpn.lateral{}.weight", s + 2),
            vec![FEATURES, c, 1, 1],
            FEATURES * c,
        );
        self.param(format!("fpn.lateral{}.bias", s + 2), vec![FEATURES], FEATURES);
        Unit { c, k: FEATURES, r: 1, stride: 1, weight, norm: usize::MAX }
    }
}

impl Table {
    pub fn new(architecture: Architecture) -> Self {
        let mut rows = Rows::default();
        let input = (architecture.channels(), architecture.input());
        let stem = rows.conv_norm(("conv1", "bn1"), input, (64, 7, 2));
        let widths = STAGES.iter().take(architecture.levels);
        let mut c = stem.k;
        let mut stages = Vec::new();
        for (s, &k) in widths.clone().enumerate() {
            stages.push([rows.block(s, 0, c, k), rows.block(s, 1, k, k)]);
            c = k;
        }
        let laterals = widths.enumerate().map(|(s, &c)| rows.lateral(s, c)).collect();
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

    #[test]
    fn fewer_stages_and_more_channels_count_as_they_should() {
        let rgb = |levels| counts(Architecture { levels, sobel: false });
        // 9,408 + 128 of the stem, 147,968 of layer1, 525,568 of layer2.
        assert_eq!(rgb(1), (157_504, 64 * 128 + 128));
        assert_eq!(rgb(2), (683_072, (64 + 128) * 128 + 2 * 128));
        let sobel = Architecture { levels: 2, sobel: true };
        assert_eq!(counts(sobel).0, 683_072 + 64 * 2 * 49);
        let (table, rgb) = (Table::new(sobel), Table::new(Architecture { sobel: false, ..sobel }));
        assert_eq!(table.units.stem.c, 8);
        assert_eq!((table.params[0].len, rgb.params[0].len), (64 * 49 * 8, 64 * 49 * 4));
    }
}
