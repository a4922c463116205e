"""Batch norm + ReLU + 3×3/2 max-pool in train mode, group after group, and ReLU + max-pool for eval mode.

Case i: `i.spec` = groups n h w c; outputs `i.z`, `i.argmax` (u8, 3·row + column in the window of the first maximum),
`i.saved` (groups, 2, c), `i.mean`, `i.var` (running), `i.dx`, `i.dgamma`, `i.dbeta`; `i.infer` = maxpool(relu(x)).
Inputs are drawn: uniform(i, t, shape, lo, hi) with t = 0 x (-1, 1), 1 dz (-1, 1), 2 gamma (-1.5, 1.5), 3 beta (-1, 1),
4 running mean (-1, 1), 5 running variance (0.1, 2). Computed in float64.
"""
import torch
import torch.nn.functional as F

from base.rng import uniform

CASES = [(1, 2, 5, 7, 3), (2, 4, 6, 3, 5), (1, 3, 1, 8, 4), (2, 2, 9, 4, 7)]


def make():
    out = {}
    for i, (groups, n, h, w, c) in enumerate(CASES):
        p, q = (h + 1) // 2, (w + 1) // 2
        draw = lambda t, shape, lo=-1, hi=1: uniform(i, t, shape, lo, hi)
        x = draw(0, (n, h, w, c)).requires_grad_()
        gamma, beta = draw(2, c, -1.5, 1.5).requires_grad_(), draw(3, c).requires_grad_()
        mean, var = draw(4, c), draw(5, c, 0.1, 2)
        pool = lambda v: F.max_pool2d(v, 3, 2, 1, return_indices=True)
        nchw = x.permute(0, 3, 1, 2)
        normed = torch.cat([F.batch_norm(g, mean, var, gamma, beta, training=True) for g in nchw.chunk(groups)])
        z, index = pool(normed.relu())
        z.backward(draw(1, (n, p, q, c)).permute(0, 3, 1, 2))

        # torch numbers the pixels of the whole map; a window starts one row above and one column left of twice its place.
        row = index // w - 2 * torch.arange(p)[:, None] + 1
        column = index % w - 2 * torch.arange(q) + 1
        pixels = x.reshape(groups, -1, c)
        saved = torch.stack((pixels.mean(1), (pixels.var(1, unbiased=False) + 1e-5).rsqrt()), 1)
        out[f"{i}.spec"] = torch.tensor((groups, n, h, w, c))
        out[f"{i}.argmax"] = (3 * row + column).permute(0, 2, 3, 1).to(torch.uint8)
        out[f"{i}.z"] = z.permute(0, 2, 3, 1).float()
        out[f"{i}.infer"] = pool(nchw.relu())[0].permute(0, 2, 3, 1).float()
        for name, t in (("saved", saved), ("mean", mean), ("var", var)):
            out[f"{i}.{name}"] = t.float()
        for name, t in (("dx", x.grad), ("dgamma", gamma.grad), ("dbeta", beta.grad)):
            out[f"{i}.{name}"] = t.float()
    return out
