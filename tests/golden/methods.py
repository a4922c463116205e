"""Ten steps of every method on eight small pictures: renderings, forward, loss, backward, Adam.

Drawn, all with seed 13 (t as in network.py):
* t = 0..: parameters of the network as there. Statistics of batch norms i = 0.. (running mean, running variance, of torchvision's
  modules in order), which only `transfer` uses: t = 2100 + 2i, -0.5..0.5, and t = 2101 + 2i, 1..3.
* t = 3000 + i: picture i (64, 64, 3) u8, the bytes of `Rng::u32`, little end first. Views are whole pictures without photometric change,
  mirrored where the method mirrors; x = (u8/255 - mean)/std of ImageNet, and the Sobel gradient of the grey picture in `iic-res12`.
* t = 2200 + i: label map i (64, 64), `Rng::below(8)`; 6 and 7 are ignored.
* t = 2000 + j: weights (k, 128) of the main (j = 0) and the auxiliary head (j = 1), -b..b; t = 2002: bias (k) of the main one, -0.1..0.1
  (IIC's have none). b = 0.3 of IIC's heads, 0.1 of others.
* t = 2010 + 2v + j: centroids of view v, 5 (j = 0) or 8 (j = 1) of them, (k, 128), -0.5..0.5.
* t = 2020 + 2v + j: pseudo labels (8, 16, 16), `Rng::below(k)`; class weights come from how often they occur.
Steps take pictures 0, 1, 5, 2 and 3, 7, 4, 6 in turn; those of IIC train the auxiliary head (0) or the main one (1) as ROUNDS says. Adam
(lr 1e-3, torch's defaults) begins with moments of 0 at step 21, that of MDC's classifier at step 1.

Stored of each case: `case.losses` (10, parts), before each update, in float32; `case.exact`, the same run in float64; the difference of the
two is what rounding does to such a run, the scale for tolerances. Parts are within and cross of PiCIE, else the loss itself.
"""
import math

import torch
import torch.nn.functional as F

from base.net import Net, merge
from base.rng import below, bits, uniform
from iic import loss_of

SEED, IMAGES, SIDE, SKIPPED, SHIFTS = 13, 8, 64, 20, 3
IDS = [[0, 1, 5, 2], [3, 7, 4, 6]]
ROUNDS = [0, 1, 0, 0, 1, 1, 0, 1, 0, 0]
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225]).double()
DX = torch.tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]]).double()


def mirror(x):
    """Columns of NHWC."""
    return x.flip(2)


def pictures(sobel):
    """NHWC float64: normalised colours, and the gradient of the grey."""
    words = [bits(SEED, 3000 + i, SIDE * SIDE * 3 // 4).astype("<u4").view("u1") for i in range(IMAGES)]
    rgb = torch.stack([torch.from_numpy(w.reshape(SIDE, SIDE, 3)) for w in words]).double() / 255

    def view(x):
        out = (x - MEAN) / STD
        if sobel:
            grey = (x @ torch.tensor([0.299, 0.587, 0.114]).double())[:, None]
            edges = F.conv2d(grey, torch.stack((DX, DX.T))[:, None], padding=1)
            out = torch.cat((out, edges.permute(0, 2, 3, 1)), 3)
        return out

    return view(rgb), view(mirror(rgb))


def adam(params, skipped, lr=1e-3):
    """As if `skipped` steps had left moments of zero."""
    optimizer = torch.optim.Adam(params, lr=lr)
    for p in params:
        p.grad = torch.zeros_like(p)
        moments = {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[p] = {"step": torch.tensor(float(skipped)), **moments}
    return optimizer


class Case:
    """What the methods share: one case in one precision."""

    def __init__(self, dtype, levels=4, sobel=False, how="direct"):
        self.dtype, self.how = dtype, how
        self.net = Net(SEED, levels, 5 if sobel else 3).to(dtype).train()
        self.plain, self.mirrored = (x.to(dtype) for x in pictures(sobel))
        self.optimizers = None

    def draw(self, t, shape, b):
        return uniform(SEED, t, shape, -b, b).to(self.dtype)

    def train(self, *groups):
        """Each group: parameters, and the steps that its Adam skipped."""
        self.optimizers = [adam(params, skipped) for params, skipped in groups]

    def features(self, x):
        return merge(self.net(x), self.how).permute(0, 2, 3, 1)

    def run(self):
        losses = []
        for step in range(10):
            parts, loss = self.step(IDS[step % 2], ROUNDS[step])
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=False)
            loss.backward()
            for optimizer in self.optimizers:
                optimizer.step()
            losses.append([p.item() for p in parts])
        return torch.tensor(losses, dtype=torch.float64)

    def body(self):
        return [p for _, p in self.net.named()]


def cross_entropy(scores, labels, weights=None):
    """Scores NHWC."""
    return F.cross_entropy(scores.permute(0, 3, 1, 2), labels, weights, ignore_index=255)


class Pseudo:
    def __init__(self, case, view, j, balance, cosine):
        k = (5, 8)[j]
        c = case.draw(2010 + 2 * view + j, (k, 128), 0.5)
        self.centroids = F.normalize(c) if cosine else c
        self.labels = below(SEED, 2020 + 2 * view + j, (IMAGES, 16, 16), k)
        share = torch.bincount(self.labels.flatten(), minlength=k).to(case.dtype) / self.labels.numel()
        self.weights = 1 / (share + 1e-3) if balance == "inverse" else share

    def loss(self, features, ids, w=None, b=0):
        """On features NHWC of unit length."""
        return cross_entropy(features @ (self.centroids if w is None else w).T + b, self.labels[ids], self.weights)


class Picie(Case):
    def __init__(self, dtype, auxiliary):
        super().__init__(dtype)
        # λ of each number of clusters.
        k1, k2 = math.log(5), math.log(8)
        self.shares = [k2 / (k1 + k2), k1 / (k1 + k2)] if auxiliary else [1]
        self.pseudo = [[Pseudo(self, v, j, "inverse", True) for j in range(len(self.shares))] for v in (0, 1)]
        self.train((self.body(), SKIPPED))

    def step(self, ids, _):
        f = [F.normalize(v, dim=3) for v in (self.features(self.mirrored[ids]), mirror(self.features(self.plain[ids])))]
        ce = lambda i, v: sum(share * p.loss(f[i], ids) for share, p in zip(self.shares, self.pseudo[v]))
        within, cross = (ce(0, 0) + ce(1, 1)) / 2, (ce(0, 1) + ce(1, 0)) / 2
        return (within, cross), (within + cross) / 2


class Mdc(Case):
    def __init__(self, dtype, parametric):
        super().__init__(dtype, how="direct" if parametric else "cascade")
        # The supplement's numbers with a layer that learns, the released code's with centroids.
        self.pseudo = Pseudo(self, 0, 0, "inverse" if parametric else "size", parametric)
        self.w, self.b = (self.draw(2000, (5, 128), 0.1), self.draw(2002, 5, 0.1)) if parametric else (None, 0)
        groups = [(self.body(), SKIPPED)]
        if parametric:
            groups.append(([self.w.requires_grad_(), self.b.requires_grad_()], 0))
        self.train(*groups)

    def step(self, ids, _):
        f = F.normalize(self.features(self.mirrored[ids]), dim=3)
        loss = self.pseudo.loss(f, ids, self.w, self.b)
        return (loss,), loss


class Iic(Case):
    def __init__(self, dtype, lambdas, collapsed=False, **architecture):
        super().__init__(dtype, **architecture)
        self.lambdas, self.collapsed = lambdas, collapsed
        self.heads = [self.draw(2001, (8, 128), 0.3).requires_grad_(), self.draw(2000, (5, 128), 0.3).requires_grad_()]
        self.train((self.body() + self.heads, SKIPPED))

    def step(self, ids, round):
        f = self.features(self.plain[ids]), mirror(self.features(self.mirrored[ids]))
        p = [(v @ self.heads[round].T).softmax(3).permute(0, 3, 1, 2) for v in f]
        loss = loss_of(*p, 4, SHIFTS, self.collapsed, self.lambdas[round])
        return (loss,), loss


class Supervised(Case):
    def __init__(self, dtype, frozen):
        super().__init__(dtype)
        maps = torch.stack([below(SEED, 2200 + i, (SIDE, SIDE), 8) for i in range(IMAGES)])
        maps[maps > 5] = 255
        # The pixel that the middle of each feature's pixel falls into.
        self.labels = torch.stack([maps[:, 2::4, 4 * (15 - x) + 2] for x in range(16)], 2)
        self.w, self.b = self.draw(2000, (6, 128), 0.1).requires_grad_(), self.draw(2002, 6, 0.1).requires_grad_()
        self.train((([] if frozen else self.body()) + [self.w, self.b], SKIPPED))
        if frozen:
            norms = [m for m in self.net.r.modules() if isinstance(m, torch.nn.BatchNorm2d)]
            for i, m in enumerate(norms):
                m.running_mean.copy_(uniform(SEED, 2100 + 2 * i, m.running_mean.shape, -0.5, 0.5))
                m.running_var.copy_(uniform(SEED, 2101 + 2 * i, m.running_var.shape, 1, 3))
            self.net.eval().requires_grad_(False)

    def step(self, ids, _):
        loss = cross_entropy(self.features(self.mirrored[ids]) @ self.w.T + self.b, self.labels[ids])
        return (loss,), loss


CASES = {
    "picie": lambda t: Picie(t, False),
    "picie-h": lambda t: Picie(t, True),
    "mdc": lambda t: Mdc(t, True),
    "mdc-centroids": lambda t: Mdc(t, False),
    "iic": lambda t: Iic(t, (1.0, 1.0)),
    "iic-collapsed": lambda t: Iic(t, (1.2, 1.5), True),
    "iic-res12": lambda t: Iic(t, (1.0, 1.5), levels=2, sobel=True),
    "supervised": lambda t: Supervised(t, False),
    "transfer": lambda t: Supervised(t, True),
}


def make():
    out = {}
    for name, case in CASES.items():
        for kind, dtype in (("losses", torch.float32), ("exact", torch.float64)):
            out[f"{name}.{kind}"] = case(dtype).run().float()
    return out
