"""A network that picie trained, in PyTorch.

    python picie.py checkpoint.safetensors photo.jpg labels.png [SHORT_SIDE]

Needs torch, torchvision, safetensors, numpy and Pillow.
"""

import json
import sys

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image, ImageOps
from safetensors import safe_open


class Picie(torch.nn.Module):
    """u8 photos (n, height, width, 3) to scores (n, clusters, height / 4, width / 4)."""

    def __init__(self, checkpoint):
        super().__init__()
        with safe_open(checkpoint, "pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}
            self.recipe = recipe = json.loads(file.metadata()["picie"])["recipe"]
        self.backbone = getattr(torchvision.models, recipe["architecture"].get("backbone", "resnet18"))()
        self.sobel = recipe["architecture"]["sobel"]
        if self.sobel:
            self.backbone.conv1 = torch.nn.Conv2d(5, 64, 7, 2, 3, bias=False)
        self.backbone.load_state_dict(weights, strict=False)
        names = [f"fpn.lateral{i + 2}" for i in range(recipe["architecture"]["levels"])]
        self.laterals = [(weights[n + ".weight"], weights[n + ".bias"]) for n in names]
        self.unit = recipe["method"] in ("picie", "mdc")
        learned = recipe["method"] == "mdc" and recipe["classifier"] == "parametric"
        name = "parametric" if learned else "classifier1"
        self.w = w = weights[name + ".weight"].flatten(1)
        self.b = weights.get(name + ".bias", torch.zeros(len(w)))
        if self.unit and not learned and recipe["score_metric"] == "l2":
            self.b = -w.square().sum(1) / 2
        if self.unit and not learned and recipe["score_metric"] == "cosine":
            self.w = F.normalize(w)
        self.eval()

    def features(self, photos):
        x = photos.permute(0, 3, 1, 2) / 255
        mean, std = torch.tensor([[[0.485, 0.456, 0.406]], [[0.229, 0.224, 0.225]]]).mT[..., None]
        if self.sobel:
            grey = (x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
            kernel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
            edges = F.conv2d(grey, torch.stack([kernel, kernel.T])[:, None], padding=1)
        x = (x - mean) / std
        net = self.backbone
        x = net.maxpool(net.relu(net.bn1(net.conv1(torch.cat([x, edges], 1) if self.sobel else x))))
        levels = []
        for (w, b), stage in zip(self.laterals, [net.layer1, net.layer2, net.layer3, net.layer4]):
            x = stage(x)
            levels.append(F.conv2d(x, w, b))
        up = lambda x, like: F.interpolate(x, like.shape[2:], mode="bilinear")
        if self.recipe["merge"] == "direct":
            y = levels[0] + sum(up(level, levels[0]) for level in levels[1:])
        else:
            y = levels.pop()
            for level in reversed(levels):
                y = level + up(y, level)
        return F.normalize(y) if self.unit else y

    def forward(self, photos):
        return F.conv2d(self.features(photos), self.w[..., None, None], self.b)


if __name__ == "__main__":
    net = Picie(sys.argv[1])
    photo = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB")
    side = int(sys.argv[4]) if len(sys.argv) > 4 else 2 * net.recipe["size"]
    scale = side / min(photo.size)
    size = [max(32, round(side * scale / 32) * 32) for side in photo.size]
    with torch.no_grad():
        pixels = torch.from_numpy(np.array(photo.resize(size, Image.Resampling.BILINEAR)))
        scores = F.interpolate(net(pixels[None]), photo.size[::-1], mode="bilinear")
    Image.fromarray(scores[0].argmax(0).numpy().astype(np.uint8)).save(sys.argv[3])
