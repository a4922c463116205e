//! Every op of the contracts, with what it must move and compute.

use crate::base::Result;
use crate::device::ops::*;
use crate::device::timed::{Timed, Work, bytes};
use crate::device::{Layout, Slot};

pub(super) fn moved(bytes: f64) -> Work {
    Work { bytes, flops: 0.0 }
}

/// The plan of the engine below, and what it was made for.
#[derive(Clone)]
pub struct Planned<P, S> {
    pub(super) plan: P,
    pub(super) spec: S,
}

impl<P, S> Planned<P, S> {
    pub(super) fn new(plan: P, spec: S) -> Self {
        Planned { plan, spec }
    }
}

impl<B: Backend> View for Timed<'_, B> {
    type ViewPlan = Planned<B::ViewPlan, ViewSpec>;

    fn plan_view(&mut self, spec: ViewSpec) -> Result<Self::ViewPlan> {
        Ok(Planned::new(self.dev.plan_view(spec)?, spec))
    }

    fn view_render(
        &mut self,
        p: &Self::ViewPlan,
        x: Slot<B::Act>,
        images: Slot<u8>,
        index: Slot<u32>,
        photo: Option<Slot<Photo>>,
        crops: Option<Slot<Crop>>,
    ) -> Result<()> {
        let ViewSpec { n, sh, sw, h, w, .. } = p.spec;
        let name = format!("view_render {n}×{sh}×{sw} → {h}×{w}");
        let stored = (n * sh * sw * 3) as f64;
        self.time(name, moved(stored + bytes![x]), |dev| {
            dev.view_render(&p.plan, x, images, index, photo, crops)
        })
    }

    fn view_sobel(&mut self, p: &Self::ViewPlan, x: Slot<B::Act>) -> Result<()> {
        let ViewSpec { n, h, w, .. } = p.spec;
        // Three channels of eight are read and two written.
        let work = moved(bytes![x] * 5.0 / 8.0);
        self.time(format!("view_sobel {n}×{h}×{w}"), work, |dev| dev.view_sobel(&p.plan, x))
    }
}

/// `3×3/2 64 → 128, 256×80×80`
fn conv_shape(s: ConvSpec) -> String {
    let ConvSpec { n, h, w, c, k, r, stride, .. } = s;
    format!("{r}×{r}/{stride} {c} → {k}, {n}×{h}×{w}")
}

impl<B: Backend> Conv for Timed<'_, B> {
    type ConvPlan = Planned<B::ConvPlan, ConvSpec>;

    fn plan_conv(&mut self, spec: ConvSpec, uses: Uses) -> Result<Self::ConvPlan> {
        Ok(Planned::new(self.dev.plan_conv(spec, uses)?, spec))
    }

    fn conv_forward(
        &mut self,
        p: &Self::ConvPlan,
        y: Slot<B::Act>,
        x: Slot<B::Act>,
        w: Slot<B::Act>,
        epilogue: Epilogue<B::Act>,
    ) -> Result<()> {
        let work = Work { bytes: bytes![y, x, w, epilogue.residual], flops: p.spec.flops() };
        let name = format!("conv_forward {}", conv_shape(p.spec));
        self.time(name, work, |dev| dev.conv_forward(&p.plan, y, x, w, epilogue))
    }

    fn conv_backward_data(
        &mut self,
        p: &Self::ConvPlan,
        dx: Slot<B::Act>,
        dy: Slot<B::Act>,
        w: Slot<B::Act>,
        accumulate: bool,
    ) -> Result<()> {
        let read = accumulate.then_some(dx);
        let work = Work { bytes: bytes![dx, read, dy, w], flops: p.spec.flops() };
        let name = format!("conv_backward_data {}", conv_shape(p.spec));
        self.time(name, work, |dev| dev.conv_backward_data(&p.plan, dx, dy, w, accumulate))
    }

    fn conv_backward_weight(
        &mut self,
        p: &Self::ConvPlan,
        dw: Slot<f32>,
        db: Option<Slot<f32>>,
        x: Slot<B::Act>,
        dy: Slot<B::Act>,
    ) -> Result<()> {
        let work = Work { bytes: bytes![dw, dw, x, dy], flops: p.spec.flops() };
        let name = format!("conv_backward_weight {}", conv_shape(p.spec));
        self.time(name, work, |dev| dev.conv_backward_weight(&p.plan, dw, db, x, dy))
    }
}

fn norm_shape(s: NormSpec) -> String {
    format!("{}×{}×{}", s.groups, s.rows, s.c)
}

impl<B: Backend> Norm for Timed<'_, B> {
    type NormPlan = Planned<B::NormPlan, NormSpec>;

    fn plan_norm(&mut self, spec: NormSpec) -> Result<Self::NormPlan> {
        Ok(Planned::new(self.dev.plan_norm(spec)?, spec))
    }

    fn norm_forward(
        &mut self,
        p: &Self::NormPlan,
        z: Slot<B::Act>,
        saved: Slot<f32>,
        x: Slot<B::Act>,
        residual: Option<Slot<B::Act>>,
        relu: bool,
        params: NormParams,
    ) -> Result<()> {
        let name = format!("norm_forward {}", norm_shape(p.spec));
        let work = moved(bytes![z, x, x, residual]);
        self.time(name, work, |dev| dev.norm_forward(&p.plan, z, saved, x, residual, relu, params))
    }

    fn norm_backward(
        &mut self,
        p: &Self::NormPlan,
        grads: NormGrads<B::Act>,
        dz: Slot<B::Act>,
        z: Option<Slot<B::Act>>,
        x: Slot<B::Act>,
        saved: Slot<f32>,
        gamma: Slot<f32>,
    ) -> Result<()> {
        let name = format!("norm_backward {}", norm_shape(p.spec));
        let work = moved(bytes![grads.dx, grads.dresidual, dz, dz, x, x, z, z]);
        self.time(name, work, |dev| dev.norm_backward(&p.plan, grads, dz, z, x, saved, gamma))
    }

    fn norm_fold(
        &mut self,
        folded: Slot<B::Act>,
        bias: Slot<B::Act>,
        w: Slot<B::Act>,
        params: NormParams,
    ) -> Result<()> {
        self.time("norm_fold".into(), moved(bytes![folded, w]), |dev| {
            dev.norm_fold(folded, bias, w, params)
        })
    }
}

fn stem_shape(s: StemSpec) -> String {
    format!("{}×{}×{}×{}", s.n, s.h, s.w, s.c)
}

impl<B: Backend> Stem for Timed<'_, B> {
    type StemPlan = Planned<B::StemPlan, StemSpec>;

    fn plan_stem(&mut self, spec: StemSpec) -> Result<Self::StemPlan> {
        Ok(Planned::new(self.dev.plan_stem(spec)?, spec))
    }

    fn stem_forward(
        &mut self,
        p: &Self::StemPlan,
        z: Slot<B::Act>,
        argmax: Option<Slot<u8>>,
        saved: Slot<f32>,
        x: Slot<B::Act>,
        params: NormParams,
    ) -> Result<()> {
        let name = format!("stem_forward {}", stem_shape(p.spec));
        let work = moved(bytes![z, argmax, x, x]);
        self.time(name, work, |dev| dev.stem_forward(&p.plan, z, argmax, saved, x, params))
    }

    fn stem_infer(&mut self, p: &Self::StemPlan, z: Slot<B::Act>, x: Slot<B::Act>) -> Result<()> {
        let name = format!("stem_infer {}", stem_shape(p.spec));
        self.time(name, moved(bytes![z, x]), |dev| dev.stem_infer(&p.plan, z, x))
    }

    fn stem_backward(
        &mut self,
        p: &Self::StemPlan,
        dx: Slot<B::Act>,
        dgamma: Slot<f32>,
        dbeta: Slot<f32>,
        dz: Slot<B::Act>,
        argmax: Slot<u8>,
        x: Slot<B::Act>,
        saved: Slot<f32>,
        params: NormParams,
    ) -> Result<()> {
        let name = format!("stem_backward {}", stem_shape(p.spec));
        let work = moved(bytes![dx, dz, dz, argmax, argmax, x]);
        self.time(name, work, |dev| {
            dev.stem_backward(&p.plan, dx, dgamma, dbeta, dz, argmax, x, saved, params)
        })
    }
}

impl<B: Backend> KMeans for Timed<'_, B> {
    type KMeansPlan = B::KMeansPlan;

    fn plan_kmeans(&mut self, spec: KMeansSpec) -> Result<Self::KMeansPlan> {
        self.dev.plan_kmeans(spec)
    }

    fn kmeans_classifier(
        &mut self,
        classifier: Classifier,
        centroids: Slot<f32>,
        metric: Metric,
    ) -> Result<()> {
        let work = moved(bytes![classifier.w, centroids]);
        self.time("kmeans_classifier".into(), work, |dev| {
            dev.kmeans_classifier(classifier, centroids, metric)
        })
    }

    fn kmeans_accumulate(
        &mut self,
        plan: &Self::KMeansPlan,
        sums: Slot<f32>,
        counts: Slot<u32>,
        score: Slot<f32>,
        points: Slot<f32>,
        classifier: Classifier,
    ) -> Result<()> {
        let k = classifier.k;
        let d = classifier.w.len / k.max(1);
        let name = format!("kmeans_accumulate {} points, {k} clusters", points.len / d.max(1));
        let work = Work { bytes: bytes![points], flops: 2.0 * (points.len * k) as f64 };
        self.time(name, work, |dev| {
            dev.kmeans_accumulate(plan, sums, counts, score, points, classifier)
        })
    }

    fn kmeans_mean(
        &mut self,
        centroids: Slot<f32>,
        counts: Slot<u32>,
        splits: Slot<u32>,
        sums: Slot<f32>,
    ) -> Result<()> {
        let work = moved(bytes![centroids, sums]);
        self.time("kmeans_mean".into(), work, |dev| {
            dev.kmeans_mean(centroids, counts, splits, sums)
        })
    }

    fn kmeans_step(
        &mut self,
        centroids: Slot<f32>,
        totals: Slot<f32>,
        sums: Slot<f32>,
        counts: Slot<u32>,
    ) -> Result<()> {
        let work = moved(bytes![centroids, centroids, sums]);
        self.time("kmeans_step".into(), work, |dev| {
            dev.kmeans_step(centroids, totals, sums, counts)
        })
    }
}

impl<B: Backend> Iic for Timed<'_, B> {
    type IicPlan = Planned<B::IicPlan, IicSpec>;

    fn plan_iic(&mut self, spec: IicSpec) -> Result<Self::IicPlan> {
        Ok(Planned::new(self.dev.plan_iic(spec)?, spec))
    }

    fn iic_loss(
        &mut self,
        p: &Self::IicPlan,
        loss: Slot<f32>,
        dmaps: Slot<f32>,
        maps: Slot<f32>,
        scale: f32,
    ) -> Result<()> {
        let IicSpec { n, h, w, k, t, .. } = p.spec;
        let name = format!("iic_loss {n}×{h}×{w}, {k} clusters, {t} pixels");
        let work = Work { bytes: bytes![dmaps, maps, maps], flops: p.spec.flops() };
        self.time(name, work, |dev| dev.iic_loss(&p.plan, loss, dmaps, maps, scale))
    }
}

impl<B: Backend> Adam for Timed<'_, B> {
    fn plan_params(&mut self, layout: &mut Layout, len: usize) -> ParamBlocks<B::Act> {
        self.dev.plan_params(layout, len)
    }

    fn adam_step(
        &mut self,
        b: ParamBlocks<B::Act>,
        spec: AdamSpec,
        correction: Slot<f32>,
    ) -> Result<()> {
        let work = moved(bytes![b.weights, b.weights, b.grads, b.m, b.m, b.v, b.v, b.copy()]);
        self.time("adam_step".into(), work, |dev| dev.adam_step(b, spec, correction))
    }

    fn sync_compute(&mut self, blocks: ParamBlocks<B::Act>) -> Result<()> {
        self.dev.sync_compute(blocks)
    }
}

impl<B: Backend> Confusion for Timed<'_, B> {
    fn confusion(
        &mut self,
        counts: Slot<u32>,
        pred: Slot<u16>,
        labels: Slot<u8>,
        clusters: usize,
    ) -> Result<()> {
        self.time("confusion".into(), moved(bytes![pred, labels]), |dev| {
            dev.confusion(counts, pred, labels, clusters)
        })
    }
}
