"""Ten steps of PiCIE with fixed labels and centroids: forward of two views, loss, backward, Adam.

Drawn as in network.py, all with seed 11: parameter t = 0..68 (He bounds, batch-norm gains and biases as there, running
statistics 0 and 1), and
* t = 1000: x (8, 64, 64, 3) NHWC, -2..2; images 0..4 are view 1, images 4..8 view 2 (two batch-norm groups).
* t = 1001, 1002: centroids 1 and 2 (5, 128), -b..b, b = sqrt(3 / 128) in f64 rounded to f32; scores are F̂·c, no bias.
* t = 1003, 1004: labels 1 and 2 (4, 16, 16), `Rng::below(5)`, element by element.
* t = 1005, 1006: class weights 1 and 2 (5), 0.25..1.75.
Features of view 2 are warped by CROPS (top, left, side, flip) before they are normalised: rows top..top + side, columns
left..left + side resampled bilinearly to 16×16, then mirrored where flip is 1. Direct merge. The same batch every step.

With CE_j(i) the weighted mean cross-entropy of view i's features against labels, centroids and weights j:
within = (CE_1(1) + CE_2(2))/2, cross = (CE_2(1) + CE_1(2))/2, loss = (within + cross)/2. Adam: lr 1e-3, torch's defaults.

Stored: `crops` (4, 4); `losses` (10, 2), within and cross before each update, in float32; `exact` (10, 2), the same run in
float64; the difference of the two is what rounding does to such a run, the scale for tolerances.
* `first` (68): L2 norm of each parameter's first gradient, float64.
"""
import math

import torch
import torch.nn.functional as F

from base.net import Net, merge, unit, up
from base.rng import below, uniform

SEED, B, K = 11, 4, 5
CROPS = [(0, 3, 13, 0), (5, 2, 9, 1), (0, 0, 16, 1), (7, 8, 8, 0)]


def warp(f):
    """NCHW (B, 128, 16, 16), image i by CROPS[i]."""
    out = []
    for v, (top, left, side, flip) in zip(f, CROPS):
        v = up(v[None, :, top : top + side, left : left + side], f.shape[-2:])
        out.append(v.flip(-1) if flip else v)
    return torch.cat(out)


def run(dtype):
    draw = lambda t, shape, lo, hi: uniform(SEED, t, shape, lo, hi).to(dtype)
    net, b = Net(SEED).to(dtype).train(), math.sqrt(3 / 128)
    views = draw(1000, (2 * B, 64, 64, 3), -2, 2).chunk(2)
    centroids = [draw(1001 + j, (K, 128), -b, b) for j in (0, 1)]
    labels = [below(SEED, 1003 + j, (B, 16, 16), K) for j in (0, 1)]
    weights = [draw(1005 + j, K, 0.25, 1.75) for j in (0, 1)]
    params = [p for _, p in net.named()]
    adam, losses, first = torch.optim.Adam(params, lr=1e-3), [], None
    for _ in range(10):
        maps = [merge(net(v), "direct") for v in views]
        features = [unit(maps[0]), unit(warp(maps[1]))]
        ce = lambda i, j: F.cross_entropy((features[i] @ centroids[j].T).permute(0, 3, 1, 2), labels[j], weights[j])
        within, cross = (ce(0, 0) + ce(1, 1)) / 2, (ce(0, 1) + ce(1, 0)) / 2
        adam.zero_grad()
        ((within + cross) / 2).backward()
        first = first or [p.grad.norm() for p in params]
        adam.step()
        losses.append((within.item(), cross.item()))
    return torch.tensor(losses, dtype=torch.float64), torch.stack(first)


def make():
    losses, _ = run(torch.float32)
    exact, first = run(torch.float64)
    return {"crops": torch.tensor(CROPS), "losses": losses.float(), "exact": exact.float(), "first": first.float()}
