"""A ResNet + FPN with drawn weights, as network.py and train.py use it."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision

from base.rng import uniform


class Net(nn.Module):
    """forward: x (B, h, w, channels) NHWC → laterals p2..p5, NCHW; the first `levels` of them, and
    no later stage, if fewer."""

    def __init__(self, seed, levels=4, channels=3, backbone="resnet18"):
        super().__init__()
        self.r = getattr(torchvision.models, backbone)(weights=None)
        expansion = self.r.layer1[0].expansion
        self.r.fc = nn.Identity()
        if channels != 3:
            self.r.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        for level in range(levels, 4):
            setattr(self.r, f"layer{level + 1}", nn.Identity())
        self.layers = [getattr(self.r, f"layer{level + 1}") for level in range(levels)]
        self.lateral = nn.ModuleList(nn.Conv2d(c, 128, 1) for c in [64 * expansion << i for i in range(levels)])
        self.double()
        for t, (name, p) in enumerate(self.named()):
            if p.dim() == 4:
                bound = math.sqrt(6 / (p.shape[1] * p.shape[2] * p.shape[3]))
                lo, hi = -bound, bound
            elif name.startswith("layer") and backbone != "resnet18":
                lo, hi = (0.75, 1.75) if name.endswith(".bias") else (0.5, 1)
            elif name.startswith("fpn.") or name.endswith(".bias"):
                lo, hi = -0.1, 0.1
            else:
                lo, hi = 0.5, 1.5
            p.data = uniform(seed, t, p.shape, lo, hi)

    def named(self):
        """Parameters by canonical name, in the order that numbers them."""
        back = [(k, v) for k, v in self.r.named_parameters()]
        laterals = [(f"fpn.lateral{i + 2}.{k}", v) for i, m in enumerate(self.lateral) for k, v in m.named_parameters()]
        return back + laterals

    def forward(self, x):
        r = self.r
        x = r.maxpool(r.relu(r.bn1(r.conv1(x.permute(0, 3, 1, 2)))))
        out = []
        for layer, lateral in zip(self.layers, self.lateral):
            x = layer(x)
            out.append(lateral(x))
        return out


def up(v, size):
    return F.interpolate(v, size=size, mode="bilinear", align_corners=False)


def merge(p, how):
    """F before normalisation, NCHW."""
    if how == "direct":
        return p[0] + sum(up(v, p[0].shape[-2:]) for v in p[1:])
    y = p[-1]
    for v in p[-2::-1]:
        y = v + up(y, v.shape[-2:])
    return y


def unit(v):
    """NCHW → NHWC features of length one."""
    return F.normalize(v, dim=1).permute(0, 2, 3, 1)


def summary(t):
    """(10): the L2 norm, the sum, and elements ⌊(2i + 1)·len/16⌋, i = 0..8, of t in row-major order."""
    flat = t.detach().double().reshape(-1)
    picks = [(2 * i + 1) * len(flat) // 16 for i in range(8)]
    return torch.cat((flat.norm()[None], flat.sum()[None], flat[picks])).float()
