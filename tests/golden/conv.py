"""Convolution forward, data, weight and bias gradients.

Case i: `i.spec` = n h w c k r stride pad; `i.y` = x ∗ w, and for dy the gradients `i.dx`, `i.dw` (k, r, r, c), `i.db` (k).
Inputs are drawn, not stored: uniform(i, t, shape, -1, 1) with t = 0 x, 1 w, 2 dy. Computed in float64.
"""
import torch
import torch.nn.functional as F

from base.rng import uniform

CASES = [
    # n, h, w, c, k, r, stride, pad
    (2, 5, 7, 3, 5, 3, 1, 1),
    (1, 6, 9, 7, 4, 3, 1, 1),
    (3, 4, 2, 20, 5, 3, 1, 1),
    (1, 5, 6, 24, 40, 3, 1, 1),
    (2, 5, 8, 6, 7, 3, 2, 1),
    (1, 6, 7, 9, 5, 3, 2, 1),
    (2, 3, 4, 10, 13, 1, 1, 0),
    (2, 5, 6, 11, 8, 1, 2, 0),
    (1, 9, 12, 4, 5, 7, 2, 3),
]


def make():
    out = {}
    for i, (n, h, w, c, k, r, stride, pad) in enumerate(CASES):
        p, q = ((v + 2 * pad - r) // stride + 1 for v in (h, w))
        x = uniform(i, 0, (n, h, w, c), -1, 1).requires_grad_()
        weight = uniform(i, 1, (k, r, r, c), -1, 1).requires_grad_()
        bias = torch.zeros(k, dtype=torch.float64, requires_grad=True)
        y = F.conv2d(x.permute(0, 3, 1, 2), weight.permute(0, 3, 1, 2), bias, stride, pad).permute(0, 2, 3, 1)
        y.backward(uniform(i, 2, (n, p, q, k), -1, 1))
        out[f"{i}.spec"] = torch.tensor((n, h, w, c, k, r, stride, pad))
        for name, t in (("y", y), ("dx", x.grad), ("dw", weight.grad), ("db", bias.grad)):
            out[f"{i}.{name}"] = t.float()
    return out
