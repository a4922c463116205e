"""Assignment by distance, Lloyd's mean, two mini-batch updates by the released code's formula."""
import torch
import torch.nn.functional as F

ROWS, D, K = 43, 6, 5


def make():
    points = F.normalize(torch.randn(ROWS, D), dim=1)
    centroids = torch.randn(K, D) * 0.5
    distance = torch.cdist(points.double(), centroids.double()) ** 2
    best = distance.argmin(1)
    counts = torch.bincount(best, minlength=K)
    assert (counts > 0).all()
    sums = torch.stack([points[best == k].sum(0) for k in range(K)])
    out = {"points": points, "centroids": centroids, "counts": counts, "sums": sums}
    out["objective"] = distance.min(1).values.sum().float()[None]
    out["mean"] = torch.stack([points[best == k].mean(0) for k in range(K)])
    out["cosine"] = F.normalize(centroids, dim=1)

    c, totals = centroids.clone(), torch.tensor([7.0, 0.0, 120.0, 3.0, 1.0])
    out["totals0"] = totals.clone()
    for step, labels in enumerate([best, torch.arange(ROWS) % 3]):
        for k in labels.unique():
            mine = points[labels == k]
            totals[k] += len(mine)
            rate = len(mine) / (totals[k] + 1e-6)
            c[k] = (1 - rate) * c[k] + rate * mine.mean(0)
        out[f"labels{step}"] = labels
        out |= {f"centroids{step + 1}": c.clone(), f"totals{step + 1}": totals.clone()}
    return out
