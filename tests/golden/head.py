"""The head: merge, warp, normalise, then loss, scores, both with gradients, arg-max, sums, prediction. d = 8 on 5x7 pixels."""
import torch
import torch.nn.functional as F

N, H, W, D, K = 4, 5, 7, 8, (5, 6, 3, 2)
IMAGES, VIEW, SCALES, OUT = 6, 2, (0.25, 0.5, 1.0, 2.0), (11, 9)
SIZES = [(5, 7), (3, 4), (2, 2), (1, 1)]
# Name, cascade, crops, targets, levels, unit features.
CASES = [
    ("direct", False, False, 2, 4, True),
    ("cascade", True, True, 2, 4, True),
    ("one", False, True, 1, 1, False),
    ("two", False, True, 4, 2, True),
    ("plain", True, False, 1, 4, False),
]
# top, left, side, flip
CROPS = [[0, 2, 5, 0], [1, 2, 4, 1], [2, 0, 3, 0], [1, 1, 3, 1]]


def up(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def merge(p, cascade):
    if not cascade:
        return sum((up(q, SIZES[0]) for q in p[1:]), p[0])
    o = p[3]
    for q in (p[2], p[1], p[0]):
        o = up(o, q.shape[2:]) + q
    return o


def warp(f):
    views = []
    for x, (top, left, side, flip) in zip(f, CROPS):
        x = up(x[None, :, top:top + side, left:left + side], (H, W))
        views.append(x.flip(3) if flip else x)
    return torch.cat(views)


def nhwc(x):
    return x.permute(0, 2, 3, 1)


def make():
    out = {"crops": torch.tensor(CROPS), "index": torch.tensor([3, 0, 5, 1])}
    p = [torch.randn(N, D, h, w) for h, w in SIZES]
    w = [torch.randn(k, D) for k in K]
    b = [torch.randn(k) * 0.3 for k in K]
    cw = [torch.rand(k) + 0.1 for k in K]
    y = [torch.randint(k, (IMAGES, H, W)) for k in K]
    out |= {f"p{i + 2}": nhwc(x) for i, x in enumerate(p)}
    ds = torch.randn(N, K[0], H, W)
    out["dscores"] = nhwc(ds)
    for c in range(len(K)):
        out |= {f"w{c}": w[c], f"b{c}": b[c], f"weights{c}": cw[c], f"labels{c}": y[c]}
    for name, cascade, crops, targets, levels, unit in CASES:
        q = [x.clone().requires_grad_() for x in p[:levels]]
        f = merge(q, cascade)
        f = warp(f) if crops else f
        f = F.normalize(f, dim=1) if unit else f
        w0, b0 = (x[0].clone().requires_grad_() for x in (w, b))
        scores = F.conv2d(f, w0[:, :, None, None], b0)
        *learned, dw, db = torch.autograd.grad(scores, [*q, w0, b0], ds, retain_graph=True)
        out |= {f"{name}.scores": nhwc(scores), f"{name}.dw": dw, f"{name}.db": db}
        out |= {f"{name}.learned{i + 2}": nhwc(x) for i, x in enumerate(learned)}
        total, losses = 0.0, torch.zeros(N, targets)
        for c in range(targets):
            s = F.conv2d(f, w[c][:, :, None, None], b[c])
            for v in range(0, N, VIEW):
                labels = y[c][out["index"][v:v + VIEW]]
                mean = F.cross_entropy(s[v:v + VIEW], labels, weight=cw[c])
                each = F.cross_entropy(s[v:v + VIEW], labels, weight=cw[c], reduction="none")
                losses[v:v + VIEW, c] = each.sum((1, 2)).detach() / cw[c][labels].sum()
                assert abs(losses[v:v + VIEW, c].sum() - mean.detach()) < 1e-5
                total = total + SCALES[c] * mean
        total.backward()
        scores = scores.detach()
        score, best = scores.max(1)
        one_hot = F.one_hot(best.flatten(), K[0]).float()
        large = up(scores, OUT).topk(2, dim=1)
        out |= {f"{name}.features": nhwc(f), f"{name}.losses": losses, f"{name}.labels": best}
        out |= {f"{name}.dp{i + 2}": nhwc(x.grad) for i, x in enumerate(q)}
        out |= {f"{name}.sums": one_hot.T @ nhwc(f).detach().reshape(-1, D), f"{name}.counts": one_hot.sum(0)}
        out |= {f"{name}.score": score.sum()[None], f"{name}.pred": large.indices[:, 0]}
        # Where the best is ahead of the second by more than rounding.
        out |= {f"{name}.sure": (large.values[:, 0] - large.values[:, 1] > 1e-5 * scores.abs().max()).to(torch.uint8)}
    return out
