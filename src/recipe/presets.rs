//! The systems that the supplement compares, and the demo.
//!
//! Sources: SUPP is the supplement of PiCIE (CVPR 2021), P the released code (janghyuncho/PiCIE at
//! c3aa029), I is IIC's (xu-ji/IIC at b7602b7). P has neither PiCIE+H nor IIC, supervised training
//! or transfer.

use crate::augment::{Augment, Jitter};
use crate::data::Fit;
use crate::device::ops::{Merge, Metric};
use crate::eval::Matching;
use crate::net::Architecture;
use crate::net::weights::Source;
use crate::recipe::{
    Balance, ClassifierKind, Decay, Freeze, Information, KMeansStart, Laterals, Method, NormMode,
    Recipe,
};

/// SUPP: epochs from random weights.
const EPOCHS_FROM_SCRATCH: usize = 20;
/// Optimizer steps of the recipe `photos`, about.
const PHOTOS_STEPS: usize = 60;

impl Recipe {
    /// The supplement's numbers.
    pub fn picie() -> Self {
        Recipe {
            name: "picie".into(),
            method: Method::Picie,
            architecture: Architecture::RESNET18,
            weights: Source::Imagenet, // SUPP: ImageNet; `from_scratch` is its other setting
            laterals: Laterals::Random, // P modules/fpn.py: nn.Conv2d's own start
            fit: Fit::Crop,
            size: 320,          // SUPP: "resizing and center-crop to 320×320"
            eval_size: 320,     // SUPP: the same
            stored: 640,        // P --res2 640; SUPP is silent on what the crops are cut from
            batch: 128,         // SUPP
            batch_cluster: 128, // SUPP: k-means batches of 128
            epochs: 10,         // SUPP: 10 from ImageNet weights, 20 from scratch
            clusters: 27,       // SUPP
            auxiliary: 0,
            matching: Matching::OneToOne,
            lr: 1e-3,                  // SUPP: Adam 1e-3, no weight decay
            lr_decay: Decay::Constant, // P train_picie.py:166: no schedule
            classifier: ClassifierKind::Centroids,
            freeze: Freeze::None,
            information: Information {
                lambda: 1.0,
                lambda_auxiliary: 1.0,
                shifts: 10,
                collapsed: false,
            },
            balance: Balance::Inverse, // SUPP: "balanced with the size of each cluster"
            merge: Merge::Direct,      // SUPP S1: each level straight to 1/4 and summed
            init_batches: 50,          // SUPP: first 50 batches
            update_every: 20,          // SUPP: every 20 iterations
            kmeans_iters: 20,          // P scripts; SUPP is silent
            kmeans_restarts: 1,        // P utils.py: Faiss's nredo is 1
            kmeans_start: KMeansStart::Fresh, // P commons.py: a new k-means each epoch
            kmeans_norm: NormMode::Batch, // SUPP is silent; as released
            label_norm: NormMode::Running, // as released
            label_metric: Metric::Cosine, // paper: cosine distance to the prototypes
            score_metric: Metric::Cosine, // the same scores train and evaluate
            score_scale: 1.0,          // P train_picie.py:121: no temperature
            fresh_kmeans: false,
            bug_plain_view1: false,
            augment: Augment::supplement(),
        }
    }

    /// The released code's COCO script, pass for pass.
    pub fn picie_released() -> Self {
        Recipe {
            name: "picie-released".into(),
            batch_cluster: 256,        // P sh_files/train_picie.sh
            lr: 1e-4,                  // P sh_files/train_picie.sh:9
            balance: Balance::Size,    // P commons.py:181
            merge: Merge::Cascade,     // P modules/fpn.py:34-45
            init_batches: 20,          // P sh_files/train_picie.sh
            update_every: 1,           // P KM_NUM=1
            label_metric: Metric::L2,  // P utils.py:125-128
            score_metric: Metric::Dot, // P train_picie.py:121-135, commons.py:206
            fresh_kmeans: true,        // P train_picie.py:295-338, repeats 1
            augment: Augment::released(),
            ..Self::picie()
        }
    }

    /// PiCIE with an auxiliary over-clustering ("+H").
    ///
    /// NOTE: written from memory, not checked against the paper: 100 auxiliary clusters, losses
    /// weighted by log K₂/(log K₁ + log K₂) and log K₁/(log K₁ + log K₂). Neither the supplement
    /// nor the released code has it.
    pub fn picie_h() -> Self {
        Recipe { name: "picie-h".into(), auxiliary: 100, ..Self::picie() }
    }

    /// Modified DeepCluster with the supplement's numbers.
    pub fn mdc() -> Self {
        Recipe {
            name: "mdc".into(),
            method: Method::Mdc,
            classifier: ClassifierKind::Parametric, // P train_mdc.py:192-205, --nonparametric off
            ..Self::picie()
        }
    }

    /// The released code's MDC script for COCO.
    pub fn mdc_released() -> Self {
        Recipe {
            name: "mdc-released".into(),
            method: Method::Mdc,
            classifier: ClassifierKind::Parametric,
            ..Self::picie_released()
        }
    }

    /// Invariant information clustering with ResNet-18 and pyramid.
    pub fn iic() -> Self {
        Recipe {
            name: "iic".into(),
            method: Method::Iic,
            fit: Fit::Pad { scale: 0.33 }, // I pre_scale_factor
            size: 128,                     // SUPP: IIC's own preprocessing, 128²
            eval_size: 128,
            stored: 160, // I crops 128² at random from the scaled picture; 0.33·480 is 158
            batch: 60,   // I commands.txt, model 512
            batch_cluster: 60,
            auxiliary: 45, // SUPP: 45, 100 and 250 are equally good
            lr: 1e-4,      // SUPP
            augment: Augment::iic(),
            // I model 512: λ = 1 for both heads, 10 pixels, --use_uncollapsed_loss.
            information: Information {
                lambda: 1.0,
                lambda_auxiliary: 1.0,
                shifts: 10,
                collapsed: false,
            },
            ..Self::picie()
        }
    }

    /// IIC on the first stages of ResNet-18.
    ///
    /// NOTE: "the first two residual layers res1 and res2" of SUPP fits no part of ResNet-18 that
    /// has "nearly the same number of parameters" as IIC's network. Here: stem, layer1 and layer2;
    /// `--levels 1` is the other reading, stem and layer1.
    pub fn iic_res12() -> Self {
        Recipe {
            name: "iic-res12".into(),
            architecture: Architecture { levels: 2, ..Architecture::RESNET18 },
            clusters: 15, // SUPP: COCO-Stuff-15
            ..Self::iic()
        }
        .from_scratch()
    }

    /// Trained on labels.
    pub fn supervised() -> Self {
        Recipe {
            name: "supervised".into(),
            method: Method::Supervised,
            matching: Matching::Identity,
            balance: Balance::None, // SUPP: Adam 1e-3; it is silent on the rest
            // Crop and mirror alone, as segmentation networks are commonly trained: colours tell
            // classes.
            augment: Augment { jitter_p: 0.0, grey_p: 0.0, blur_p: 0.0, ..Augment::supplement() },
            ..Self::picie()
        }
    }

    /// The same, from the checkpoint that `--weights` names.
    pub fn transfer() -> Self {
        Recipe { name: "transfer".into(), ..Self::supervised() }
    }

    /// What a newcomer's first run trains: PiCIE with small numbers.
    pub fn demo() -> Self {
        Recipe { name: "demo".into(), ..Self::picie().small() }
    }

    /// What `picie train --data FOLDER` trains on a folder of photos without labels, on the CPU.
    pub fn photos() -> Self {
        Self::picie().for_photos()
    }

    /// The same system for some 30 to 3,000 photos on two cores: as [`Recipe::small`], with a
    /// larger input.
    pub fn for_photos(self) -> Self {
        let small = self.small();
        // Photos are finer than drawn scenes; the paper's 320 takes three times as long.
        let size = 192;
        Recipe {
            name: "photos".into(),
            size,
            eval_size: if small.weights == Source::None { size } else { 2 * size },
            stored: 2 * size,
            clusters: 8, // where it is not chosen from the images (`method/choose.rs`)
            // 128 images, 150 MB of points: starts on more take longer than the pass itself.
            init_batches: 4,
            ..small
        }
    }

    /// Epochs of the recipe `photos` on `images` images.
    ///
    /// NOTE: it is steps that teach, and pseudo labels that tell what: a few steps on each epoch's
    /// labels, and enough epochs for some [`PHOTOS_STEPS`] steps. Two epochs at least, so that
    /// labels are of a network that has learned; 20 at most, since the pictures of a small folder
    /// are soon learned by heart.
    pub fn photos_epochs(&self, images: usize) -> usize {
        PHOTOS_STEPS.div_ceil(images.div_ceil(self.batch)).clamp(2, 20)
    }

    /// SUPP's other setting: random weights, more epochs, and for MDC and IIC the Sobel gradient
    /// beside the picture. The released code has no Sobel gradient.
    pub fn from_scratch(self) -> Self {
        let sobel =
            matches!(self.method, Method::Mdc | Method::Iic) && !self.name.ends_with("-released");
        Recipe {
            weights: Source::None,
            epochs: self.epochs.max(EPOCHS_FROM_SCRATCH),
            architecture: Architecture {
                sobel: sobel || self.architecture.sobel,
                ..self.architecture
            },
            ..self
        }
    }

    /// The same system for a few hundred pictures of scenes on two cores. Numbers are chosen by
    /// trial on drawn scenes (`docs/learning.md`).
    pub fn small(self) -> Self {
        let clusters = if self.method == Method::Supervised { self.clusters } else { 9 };
        let scratch = self.weights == Source::None;
        let (epochs, batch, lr) = match (self.method, scratch) {
            // The released code's rate: a higher one gains no more (docs/learning.md).
            (Method::Picie, false) => (2, 16, 1e-4),
            // More steps from few images: 32 gains 7 points of mIoU over the untrained network, 16
            // gains 8; 8 epochs of 32 are not better.
            (Method::Picie, true) => (5, 16, 1e-3),
            // The layer starts anew in each epoch and needs steps: from random weights 16 gains 3
            // points, 4 gains 4.
            (Method::Mdc, false) => (2, 4, 1e-4),
            (Method::Mdc, true) => (4, 4, 1e-3),
            // The paper's 1e-4 is for hundreds of steps an epoch: here it ends at 7 mIoU, and this
            // at 19.
            (Method::Iic, _) => (3, 16, 1e-3),
            (Method::Supervised, false) => (5, 16, self.lr),
            (Method::Supervised, true) => (EPOCHS_FROM_SCRATCH, 16, self.lr),
        };
        // From random weights PiCIE ends below k-means of colours, and with the gradient above it
        // (docs/learning.md).
        let sobel = self.architecture.sobel || (scratch && self.method == Method::Picie);
        let start = Recipe {
            architecture: Architecture { sobel, ..self.architecture },
            fit: Fit::Crop,
            size: 128,
            stored: if self.method == Method::Iic { 160 } else { 256 },
            batch,
            batch_cluster: 32,
            epochs,
            lr,
            clusters, // the classes of the scenes
            auxiliary: if self.auxiliary > 0 { 27 } else { 0 },
            init_batches: 8, // all images
            update_every: 1,
            ..self
        };
        if scratch {
            return Recipe { eval_size: start.size, ..start };
        }
        let laterals =
            if start.method == Method::Supervised { Laterals::Random } else { Laterals::Pca };
        Recipe {
            // Where what 128² taught sees best: 46.9, 51.5, 53.6 and 53.8 mIoU at 128², 192², 256²
            // and 320².
            eval_size: 320,
            lr_decay: Decay::Linear,
            score_scale: 8.0,
            laterals,
            kmeans_norm: NormMode::Running,
            kmeans_restarts: 8,
            kmeans_start: KMeansStart::Last,
            ..start
        }
    }
}

impl Augment {
    /// IIC's photometric change: torchvision's `ColorJitter(0.4, 0.4, 0.4, 0.125)`, always; a
    /// window of the network's size of a picture stored at 160, and a mirror (I data.py,
    /// transforms.py; model 512).
    fn iic() -> Self {
        Augment {
            jitter: Jitter::Joint,
            jitter_p: 1.0,
            brightness: 0.4,
            contrast: 0.4,
            saturation: 0.4,
            hue: 0.125,
            grey_p: 0.0,
            blur_p: 0.0,
            crop: (0.8, 0.8),
            ..Augment::supplement()
        }
    }
}
