"""IIC's dense loss from its definition: upsample, correlate all classes under all shifts by one convolution, autograd."""
import sys

import torch
import torch.nn.functional as F

# Pairs, rows, columns, classes, upsampling, shift, collapsed, λ.
CASES = {
    "plain": (2, 5, 7, 3, 4, 3, False, 1.0),
    "weighted": (2, 5, 7, 6, 4, 3, False, 1.5),
    "far": (2, 4, 6, 3, 4, 11, False, 1.0),
    "wide": (3, 7, 6, 5, 2, 9, False, 1.5),
    "coarse": (3, 5, 6, 4, 1, 2, False, 1.0),
    "still": (2, 3, 4, 3, 4, 0, False, 1.0),
    "collapsed": (2, 5, 7, 3, 4, 3, True, 1.0),
    "collapsed_weighted": (2, 6, 4, 6, 4, 5, True, 1.5),
    "lines": (2, 1, 2, 3, 4, 3, False, 1.0),
    # Classes that some pixels do not have at all, and one that none has.
    "clamped": (2, 5, 4, 5, 4, 2, False, 1.5),
}


def loss_of(x1, x2, up, t, collapsed, lam):
    x1, x2 = (F.interpolate(x, scale_factor=up, mode="bilinear", align_corners=False) for x in (x1, x2))
    q = F.conv2d(x1.transpose(0, 1), x2.transpose(0, 1), padding=t)  # (class of 1, class of 2, shifts, shifts)
    if collapsed:
        q = q.sum((2, 3), keepdim=True)
        p = q / q.sum().detach()
    else:
        p = q / q.sum((0, 1))
    p = (p + p.transpose(0, 1)) / 2
    logs = [v.clamp(min=sys.float_info.epsilon).log() for v in (p, p.sum(1, keepdim=True), p.sum(0, keepdim=True))]
    p = p.clamp(min=sys.float_info.epsilon)
    loss = -(p * (logs[0] - lam * logs[1] - lam * logs[2])).sum()
    return loss / (p.shape[2] * p.shape[3])


def make():
    out = {}
    for name, (n, h, w, k, up, t, collapsed, lam) in CASES.items():
        logits = torch.randn(2 * n, k, h, w, dtype=torch.float64) * 2
        if name == "clamped":
            logits[:, 1, :, :2] = -torch.inf
            logits[:, 3, 2:] = -torch.inf
            logits[:, 4] = -torch.inf
        # The gradient is of the maps as f32 holds them.
        maps = logits.softmax(1).float().double().requires_grad_()
        loss = loss_of(maps[:n], maps[n:], up, t, collapsed, lam)
        (grad,) = torch.autograd.grad(loss, maps)
        out[f"{name}/maps"] = maps.permute(0, 2, 3, 1).float()
        out[f"{name}/grad"] = grad.permute(0, 2, 3, 1).float()
        out[f"{name}/loss"] = loss.float()[None]
    return out
