"""Batch norm (+ residual) (+ ReLU) in train mode, group after group, and eval mode folded into a convolution.

Case i: `i.spec` = groups rows c residual relu; outputs `i.z`, `i.saved` (groups, 2, c), `i.mean`, `i.var` (running),
`i.dx`, `i.dgamma`, `i.dbeta`, and `i.dresidual` where there is a residual; `i.folded` (c, 6)
and `i.bias` with the running statistics as they were before the forward.
Inputs are drawn: uniform(i, t, shape, lo, hi) with t = 0 x (-1, 3), 1 residual (-1, 1), 2 dz (-1, 1), 3 gamma (-1.5, 1.5),
4 beta (-1, 1), 5 running mean (-1, 1), 6 running variance (0.1, 2), 7 w (c, 6) (-1, 1). Computed in float64.
"""
import itertools

import torch
import torch.nn.functional as F

from base.rng import uniform

CASES = [(g, 11 + 3 * g, 5 + g, res, relu) for g, res, relu in itertools.product((1, 2), (0, 1), (0, 1))]


def make():
    out = {}
    for i, (groups, rows, c, has_residual, relu) in enumerate(CASES):
        draw = lambda t, shape, lo=-1, hi=1: uniform(i, t, shape, lo, hi)
        x, residual = draw(0, (groups, rows, c), -1, 3).requires_grad_(), draw(1, (groups, rows, c)).requires_grad_()
        gamma, beta = draw(3, c, -1.5, 1.5).requires_grad_(), draw(4, c).requires_grad_()
        mean, var, w = draw(5, c), draw(6, c, 0.1, 2), draw(7, (c, 6))
        scale = (gamma / (var + 1e-5).sqrt()).detach()
        out[f"{i}.folded"], out[f"{i}.bias"] = (w * scale[:, None]).float(), (beta - mean * scale).float()

        z = torch.stack([F.batch_norm(g, mean, var, gamma, beta, training=True) for g in x])
        z = z + residual if has_residual else z
        z = z.relu() if relu else z
        z.backward(draw(2, (groups, rows, c)))
        saved = torch.stack((x.mean(1), (x.var(1, unbiased=False) + 1e-5).rsqrt()), 1)
        out[f"{i}.spec"] = torch.tensor((groups, rows, c, has_residual, relu))
        for name, t in (("z", z), ("saved", saved), ("mean", mean), ("var", var)):
            out[f"{i}.{name}"] = t.float()
        for name, t in (("dx", x.grad), ("dgamma", gamma.grad), ("dbeta", beta.grad)):
            out[f"{i}.{name}"] = t.float()
        if has_residual:
            out[f"{i}.dresidual"] = residual.grad.float()
    return out
