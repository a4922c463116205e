"""The histogram of (label, prediction) by bincount, 255 left out."""
import torch

CLASSES, CLUSTERS = 4, 7


def make():
    labels = torch.randint(CLASSES, (301,))
    labels[torch.rand(301) < 0.2] = 255
    pred = torch.randint(CLUSTERS, (301,))
    kept = labels < 255
    counts = torch.bincount(labels[kept] * CLUSTERS + pred[kept], minlength=CLASSES * CLUSTERS)
    return {"labels": labels.to(torch.uint8), "pred": pred, "counts": counts}
