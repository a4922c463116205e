"""The whole network: ResNet-18 (torchvision's, no fc) + four biased 1×1 laterals to 128 channels, forward and backward.

Drawn, not stored (all by `Rng::new(7, Stream::Other, t, 0).uniform(lo, hi)`, element by element in row-major order):
* Parameter number t, t = 0..68, in the order of torchvision's `named_parameters()` without fc (conv1.weight, bn1.weight,
  bn1.bias, layer1.0.conv1.weight, layer1.0.bn1.weight, …, layer2.0.conv2.weight, layer2.0.bn2.weight, layer2.0.bn2.bias,
  layer2.0.downsample.0.weight, layer2.0.downsample.1.weight, …), then fpn.lateral2.weight, fpn.lateral2.bias, …,
  fpn.lateral5.bias. Shapes and element order are torch's: (k, c, r, r), conv1 with c = 3, lateral weights (128, c, 1, 1).
  Weights of convolutions and laterals: lo = -b, hi = b, b = sqrt(6 / (c·r·r)) taken in f64 and rounded to f32; biases, of
  batch norms and of laterals: -0.1..0.1; weights of batch norms: 0.5..1.5. Running mean 0 and variance 1 at the start.
* t = 1000: x (4, 64, 96, 3) NHWC, -2..2 (the engine's fourth channel is 0). Images 0, 1 are view 1, images 2, 3 view 2:
  two forwards in train mode one after the other, that is one batch of two batch-norm groups.
* t = 1001: R (4, 16, 24, 128) NHWC, -1..1. The loss is Σ F̂·R over both views.
* Of the two-level network (below): weights by the same rule with t = 0..34 (conv1 with c = 5, … layer2.1.bn2.bias, then
  fpn.lateral2.weight … fpn.lateral3.bias), and t = 1002: x (4, 64, 96, 5), -2..2; R as above.

A `summary` is 10 numbers: L2 norm, sum, elements ⌊(2i + 1)·len/16⌋ for i = 0..8; maps are summarised NHWC over all 4 images,
gradients in torch's element order. A sum of len terms of both signs is as exact as eps·norm·√len, not relative to itself.

Stored, with M in {direct, cascade} and computed in float64:
* `laterals` (4, 10): summaries of p2..p5 in train mode.       `running` (40, 10): of the running statistics after both views:
  bn1 mean, bn1 var, layer1.0.bn1 mean, … in the order of torchvision's modules (…, layer2.0.bn2, layer2.0.downsample.1, …).
* `M.features` (26, 128): F̂ in train mode at pixels 0, 61, 122, … of the 4·16·24, images first.    `M.loss` (1).
* `M.grads` (68, 10): summaries of the loss' gradient of parameter t.
* `eval.laterals` (4, 10) and `M.eval` (26, 128): the same of eval mode with those running statistics, all 4 images.
* `M.noise` (68): |g32 − g| / |g| of each whole gradient, g32 torch's own in float32: what f32 costs here, for tolerances.
* `two.laterals` (2, 10), `two.running`, `two.features`, `two.loss`, `two.grads` (34, 10), `two.eval.laterals`, `two.eval`: the
  same of stem, layer1 and layer2 alone with 5 input channels. Two levels have one merge.
* `resnet34.…` and `resnet50.…`: the same of those backbones in direct merge, with `….noise` and parameters t = 0..116 and
  0..167 in their own order (resnet50's blocks have conv3 and bn3, its laterals are on 256, 512, 1024 and 2048 channels).
  Inside of their blocks batch norm has weights 0.5..1 and biases 0.75..1.75: so many ReLUs, were half of them off, would
  have some inputs so close to 0 that rounding decides, and one of those in layer4 turns gradients by 1 %.
* `noise.features` (1): the same for direct train features.
"""
import torch

from base.net import Net, merge, summary, unit
from base.rng import uniform

SEED, MERGES = 7, ("direct", "cascade")


def train(dtype, merges=MERGES, channels=3, **architecture):
    """Laterals (both views), features by merge, losses, gradients by merge; and the network after it."""
    net = Net(SEED, channels=channels, **architecture).to(dtype).train()
    x = uniform(SEED, 1000 if channels == 3 else 1002, (4, 64, 96, channels), -2, 2).to(dtype)
    r = uniform(SEED, 1001, (4, 16, 24, 128), -1, 1).to(dtype)
    views = [net(v) for v in x.chunk(2)]
    laterals = [torch.cat(p) for p in zip(*views)]
    features, losses, grads = {}, {}, {}
    for how in merges:
        features[how] = unit(merge(laterals, how))
        losses[how] = (features[how] * r).sum()
        grads[how] = torch.autograd.grad(losses[how], [p for _, p in net.named()], retain_graph=True)
    return net, x, laterals, features, losses, grads


def nhwc(maps):
    return torch.stack([summary(p.permute(0, 2, 3, 1)) for p in maps])


def pixels(f):
    return f.reshape(-1, 128)[::61].float()


def run(merges, prefix="", **architecture):
    net, x, laterals, features, losses, grads = train(torch.float64, merges, **architecture)
    norms = [m for m in net.r.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    running = torch.stack([summary(t) for m in norms for t in (m.running_mean, m.running_var)])
    with torch.no_grad():
        evaluated = net.eval()(x)
    out = {f"{prefix}laterals": nhwc(laterals), f"{prefix}running": running, f"{prefix}eval.laterals": nhwc(evaluated)}
    for how in merges:
        name = f"{prefix or how + '.'}"
        out[f"{name}features"] = pixels(features[how])
        out[f"{name}loss"] = losses[how][None].float()
        out[f"{name}grads"] = torch.stack([summary(g) for g in grads[how]])
        out[f"{name}eval"] = pixels(unit(merge(evaluated, how)))
    return out, features, grads


def away(a, b):
    return ((a.double() - b).norm() / b.norm()).float()


def make():
    out, features, grads = run(MERGES)
    _, _, _, features32, _, grads32 = train(torch.float32)
    out["noise.features"] = away(features32["direct"], features["direct"])[None]
    for how in MERGES:
        out[f"{how}.noise"] = torch.stack([away(a, b) for a, b in zip(grads32[how], grads[how])])
    out |= run(("direct",), "two.", levels=2, channels=5)[0]
    for backbone in ("resnet34", "resnet50"):
        deeper, _, grads = run(("direct",), f"{backbone}.", backbone=backbone)
        grads32 = train(torch.float32, ("direct",), backbone=backbone)[-1]
        noise = [away(a, b) for a, b in zip(grads32["direct"], grads["direct"])]
        out |= deeper | {f"{backbone}.noise": torch.stack(noise)}
    return out
