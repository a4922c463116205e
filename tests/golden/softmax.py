"""Softmax and its gradient; cross-entropy with class weights and ignored labels, an image and a whole batch of them too.

Scores are (n, pixels, k), a loss for each image: its share of the batch's weighted mean.
"""
import torch
import torch.nn.functional as F

N, PIXELS = 4, 7
IGNORED = 65535


def make():
    out = {}
    # Few classes, a vector's width and a rest, and more than one pass of a warp.
    for k in [2, 21, 150]:
        scores = (3 * torch.randn(N, PIXELS, k)).requires_grad_()
        dp = torch.randn(N, PIXELS, k)
        p = scores.softmax(-1)
        p.backward(dp)
        out |= {f"scores{k}": scores, f"p{k}": p, f"dp{k}": dp, f"dscores{k}": scores.grad}

        weights = torch.rand(k) + 0.2
        # A store of 6 images, of which row 3 has no label; no batch but the second takes it alone.
        labels = torch.randint(k, (6, PIXELS))
        labels[torch.rand(labels.shape) < 0.3] = IGNORED
        labels[3] = IGNORED
        out |= {f"labels{k}": labels, f"weights{k}": weights}
        for name, index in [("some", torch.tensor([5, 3, 0, 5])), ("none", torch.tensor([3, 3, 3, 3]))]:
            x = scores.detach().clone().requires_grad_()
            y = labels[index]
            args = (x.reshape(-1, k), y.reshape(-1), weights)
            each = F.cross_entropy(*args, ignore_index=IGNORED, reduction="none").reshape(N, PIXELS)
            total = torch.where(y == IGNORED, 0.0, weights[y % IGNORED % k]).sum()
            losses = each.sum(1) / total if total > 0 else 0 * each.sum(1)
            if total > 0:
                mean = F.cross_entropy(*args, ignore_index=IGNORED)
                torch.testing.assert_close(losses.sum(), mean)
                mean.backward()
            else:
                # torch's mean is 0/0 here; the op's contract says 0.
                losses.sum().backward()
            out |= {f"index_{name}": index, f"losses{k}_{name}": losses, f"grad{k}_{name}": x.grad}
    return out
