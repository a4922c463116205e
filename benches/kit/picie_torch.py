"""PiCIE in PyTorch, as strong as a good PyTorch user would write it: the peer that picie is measured against.

Everything stays on the device: images resident as uint8, augmentation batched, labels in memory, autocast to bf16, channels_last,
torch.compile on demand. Phases follow the paper's epoch: k-means of both views (train-mode BN), labels of both views (eval-mode BN),
training on both views. Nothing waits for the device inside a phase but the end of k-means' first batches.

usage: picie_torch.py [--scenes DIR | --random N] [--res 320] [--batch 128] [--batch-cluster 256] [--epochs 1] [--device cuda]
                      [--bf16] [--channels-last] [--compile] [--k 27] [--weights size|inverse|none] [--fpn direct|cascade]
Prints one JSON line an epoch: seconds of each phase, images/s, and with --scenes accuracy and mIoU (which need scipy and Pillow).
"""
import argparse
import json
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from torchvision.models import resnet18

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POINTS = 1 << 20  # of the first batches, compared with the centroids at a time


def load_scenes(root, split, res):
    """Images (N,3,res,res) uint8 and labels (N,res,res) of a split: the short side scaled to res, the middle cut out."""
    import numpy as np
    from PIL import Image

    with open(f"{root}/curated/{split}2017/Coco164kFull_Stuff_Coarse_7.txt") as lines:
        ids = lines.read().split()
    xs, ys = [], []
    for i in ids:
        image = Image.open(f"{root}/images/{split}2017/{i}.jpg").convert("RGB")
        labels = Image.open(f"{root}/annotations/{split}2017/{i}.png")
        w, h = image.size
        scale = res / min(w, h)
        size = (max(res, round(w * scale)), max(res, round(h * scale)))
        left, top = (size[0] - res) // 2, (size[1] - res) // 2
        box = (left, top, left + res, top + res)
        xs.append(np.asarray(image.resize(size, Image.BILINEAR).crop(box)))
        ys.append(np.asarray(labels.resize(size, Image.NEAREST).crop(box)))
    return torch.from_numpy(np.stack(xs)).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(np.stack(ys)).long()


class Net(nn.Module):
    """ResNet-18 and a pyramid of 128 channels at a quarter of the input."""

    def __init__(self, cascade):
        super().__init__()
        self.r, self.cascade = resnet18(weights=None), cascade
        self.lat = nn.ModuleList(nn.Conv2d(c, 128, 1) for c in (64, 128, 256, 512))

    def forward(self, x):
        r = self.r
        x = r.maxpool(r.relu(r.bn1(r.conv1(x))))
        maps = []
        for layer in (r.layer1, r.layer2, r.layer3, r.layer4):
            x = layer(x)
            maps.append(x)
        p = [lateral(m) for lateral, m in zip(self.lat, maps)]

        def up(v, like):
            return F.interpolate(v, size=like.shape[-2:], mode="bilinear", align_corners=False)

        if self.cascade:
            y = p[3]
            for v in (p[2], p[1], p[0]):
                y = up(y, v) + v
            return y
        return p[0] + sum(up(v, p[0]) for v in p[1:])


def sample_params(n, dev, g):
    def r(*shape):
        return torch.rand(*shape, generator=g).to(dev)

    one = torch.ones(n, device=dev)
    d = {k: torch.where(r(n) < 0.8, 1 + (r(n) * 2 - 1) * 0.3, one) for k in ("brightness", "contrast", "saturation")}
    d["hue"] = torch.where(r(n) < 0.8, (r(n) * 2 - 1) * 0.1, 0 * one)
    d["gray"], d["blur"], d["sigma"] = r(n) < 0.2, r(n) < 0.5, 0.1 + r(n) * 1.9
    return d


def sample_geo(n, dev, g, low=0.5):
    def r():
        return torch.rand(n, generator=g).to(dev)

    return {"scale": low + (1 - low) * r(), "ox": r(), "oy": r(), "flip": r() < 0.5}


def photometric(x, p):
    """x: (B,3,H,W) in 0..1."""

    def v(name):
        return p[name].view(-1, 1, 1, 1)

    def gray(t):
        return 0.299 * t[:, :1] + 0.587 * t[:, 1:2] + 0.114 * t[:, 2:]

    x = (x * v("brightness")).clamp(0, 1)
    m = gray(x).mean((2, 3), keepdim=True)
    x = (m + (x - m) * v("contrast")).clamp(0, 1)
    y = gray(x)
    x = (y + (x - y) * v("saturation")).clamp(0, 1)
    # Hue by way of HSV.
    high, at = x.max(1)
    c = high - x.min(1).values
    eps = 1e-8
    red, green, blue = x.unbind(1)
    later = torch.where(at == 1, (blue - red) / (c + eps) + 2, (red - green) / (c + eps) + 4)
    h = torch.where(at == 0, ((green - blue) / (c + eps)) % 6, later) / 6
    h = (h + p["hue"].view(-1, 1, 1)) % 1.0
    s = c / (high + eps)

    def channel(n):
        k = (n + h * 6) % 6
        return high - high * s * torch.minimum(torch.minimum(k, 4 - k), torch.ones_like(k)).clamp(min=0)

    x = torch.stack((channel(5), channel(3), channel(1)), 1)
    x = torch.where(v("gray"), gray(x).expand_as(x), x)
    # Gaussian blur: two passes of a convolution with a kernel of its own for each image.
    reach = 6
    t = torch.arange(-reach, reach + 1, device=x.device).float()
    k = torch.exp(-0.5 * (t / p["sigma"].view(-1, 1)) ** 2)
    k = (k / k.sum(1, keepdim=True)).repeat_interleave(x.shape[1], 0)
    B, C, H, W = x.shape
    wide = F.pad(x, (reach, reach, reach, reach), mode="replicate").reshape(1, B * C, H + 2 * reach, W + 2 * reach)
    rows = F.conv2d(wide, k.view(B * C, 1, 1, -1), groups=B * C)
    return torch.where(v("blur"), F.conv2d(rows, k.view(B * C, 1, -1, 1), groups=B * C).reshape(B, C, H, W), x)


def geometric(x, g, out):
    """Crop and flip as one bilinear resampling of x (B,C,H,W) to out × out."""
    s = g["scale"]
    theta = torch.zeros(len(x), 2, 3, device=x.device)
    theta[:, 0, 0], theta[:, 1, 1] = torch.where(g["flip"], -s, s), s
    theta[:, 0, 2], theta[:, 1, 2] = (1 - s) * (2 * g["ox"] - 1), (1 - s) * (2 * g["oy"] - 1)
    grid = F.affine_grid(theta, (len(x), x.shape[1], out, out), align_corners=False)
    return F.grid_sample(x.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)


def nearest(points, C):
    """Largest 2·x·c − ‖c‖² and its cluster, for each point (P,D) among C (K,D)."""
    return ((points @ C.T) * 2 - (C * C).sum(1)).max(1)


def sums(points, i, ks):
    """Sum (K,D) and count (K) of the points of each cluster, as a product: no atomics, and no wait for the host."""
    hot = (i[:, None] == ks).to(points.dtype)
    return hot.T @ points, hot.sum(0)


def lloyd(D, k, iters, g, ks):
    """Centroids and counts of the points D (P,D) after some iterations, and the mean distance of the last but one."""

    def pick(n):
        return D[torch.randint(len(D), (n,), generator=g).to(D.device)]

    C = pick(k).clone()
    for _ in range(iters):
        S, cnt, total = torch.zeros_like(C), torch.zeros(k, device=D.device), 0.0
        for d in D.split(POINTS):
            m, i = nearest(d, C)
            s, c = sums(d, i, ks)
            S, cnt, total = S + s, cnt + c, total + (1 - m).sum()
        C = torch.where(cnt[:, None] > 0, S / cnt.clamp(min=1)[:, None], pick(k))
    return C, cnt, total / len(D)


def arguments():
    a = argparse.ArgumentParser()
    a.add_argument("--scenes")
    a.add_argument("--random", type=int, default=0)
    a.add_argument("--res", type=int, default=320)
    a.add_argument("--base", type=int, default=0, help="stored size, default 2*res")
    a.add_argument("--batch", type=int, default=128)
    a.add_argument("--batch-cluster", type=int, default=0, help="of k-means and labels, default batch")
    a.add_argument("--epochs", type=int, default=1)
    a.add_argument("--device", default="cuda")
    a.add_argument("--bf16", action="store_true")
    a.add_argument("--channels-last", action="store_true")
    a.add_argument("--compile", action="store_true")
    a.add_argument("--k", type=int, default=27)
    a.add_argument("--weights", default="size", choices=("size", "inverse", "none"))
    a.add_argument("--fpn", default="direct", choices=("direct", "cascade"))
    a.add_argument("--lr", type=float, default=1e-4)
    a.add_argument("--init-batches", type=int, default=20)
    a.add_argument("--iters", type=int, default=20)
    a.add_argument("--seed", type=int, default=1)
    return a.parse_args()


class Peer:
    def __init__(self, a):
        self.a, self.dev = a, torch.device(a.device)
        self.cuda = self.dev.type == "cuda"
        torch.manual_seed(a.seed)
        self.g = torch.Generator().manual_seed(a.seed)
        torch.backends.cudnn.benchmark = True
        if a.bf16:
            torch.set_float32_matmul_precision("high")
        base = a.base or 2 * a.res
        self.val = None
        if a.scenes:
            X, _ = load_scenes(a.scenes, "train", base)
            XV, YV = load_scenes(a.scenes, "val", a.res)
            ids = {f: i for i, f in enumerate(sorted(set(YV.unique().tolist()) - {255}))}
            lut = torch.full((256,), -1)
            for f, i in ids.items():
                lut[f] = i
            self.val = XV, lut[YV], len(ids)
        else:
            X = torch.randint(0, 256, (a.random, 3, base, base), dtype=torch.uint8, device=self.dev)
        self.X = X.to(self.dev)
        net = Net(a.fpn == "cascade").to(self.dev)
        self.net = net.to(memory_format=torch.channels_last) if a.channels_last else net
        # NOTE: shapes are few (two batch sizes), so each is compiled for itself.
        self.forward = torch.compile(self.net, dynamic=False) if a.compile else self.net
        self.photometric = torch.compile(photometric, dynamic=False) if a.compile else photometric
        self.opt = torch.optim.Adam(self.net.parameters(), lr=a.lr, fused=self.cuda)
        self.mean, self.std = (torch.tensor(t, device=self.dev).view(1, 3, 1, 1) for t in (MEAN, STD))
        self.ks = torch.arange(a.k, device=self.dev)

    def now(self):
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def amp(self):
        return torch.autocast(self.dev.type, torch.bfloat16, enabled=self.a.bf16)

    def features(self, ix, view):
        """Points (P,128) of unit length. View 0 is cropped before the network, view 1 behind it."""
        a = self.a
        geo = {k: v[ix] for k, v in self.G.items()}
        x = self.photometric(self.X[ix].float() / 255, {k: v[ix] for k, v in self.P[view].items()})
        x = geometric(x, geo, a.res) if view == 0 else F.interpolate(x, size=(a.res, a.res), mode="bilinear")
        x = (x - self.mean) / self.std
        if a.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        with self.amp():
            f = self.forward(x)
        if view == 1:
            f = geometric(f, geo, a.res // 4)
        f = F.normalize(f.float(), dim=1)
        return f.permute(0, 2, 3, 1).reshape(-1, f.shape[1])

    @torch.no_grad()
    def kmeans(self, view, order):
        """Centroids of a view: Lloyd's iterations on the first batches, then an update a batch."""
        a = self.a
        batches = order.split(a.batch_cluster or a.batch)
        first = min(a.init_batches, len(batches))
        D, filled = None, 0
        for ix in batches[:first]:
            f = self.features(ix, view)
            if D is None:
                images = sum(len(b) for b in batches[:first])
                D = torch.empty(images * (len(f) // len(ix)), f.shape[1], device=self.dev)
            D[filled : filled + len(f)] = f
            filled += len(f)
        C, cnt, loss = lloyd(D, a.k, a.iters, self.g, self.ks)
        del D
        losses = [loss]
        for ix in batches[first:]:
            f = self.features(ix, view)
            m, i = nearest(f, C)
            S, c = sums(f, i, self.ks)
            cnt = cnt + c
            rate = (c / (cnt + 1e-6))[:, None]
            C = torch.where(c[:, None] > 0, (1 - rate) * C + rate * S / c.clamp(min=1)[:, None], C)
            losses.append((1 - m).mean())
        return C, torch.stack(losses).mean()

    @torch.no_grad()
    def label(self, view, order, C):
        """Pseudo labels (N,V,V) of a view, and the weight of each cluster."""
        a, side = self.a, self.a.res // 4
        L = torch.empty(len(self.X), side, side, dtype=torch.uint8 if a.k <= 256 else torch.int16, device=self.dev)
        cnt = torch.zeros(a.k, device=self.dev)
        for ix in order.split(a.batch_cluster or a.batch):
            i = nearest(self.features(ix, view), C)[1]
            cnt += (i[:, None] == self.ks).sum(0)
            L[ix] = i.view(-1, side, side).to(L.dtype)
        w = cnt / cnt.sum()
        return L, {"size": w, "inverse": 1 / (w + 1e-3), "none": torch.ones_like(w)}[a.weights]

    def step(self, ix, cents, labels, weights):
        f = [self.features(ix, v) for v in (0, 1)]
        y = [labels[v][ix].long().flatten() for v in (0, 1)]

        def ce(i, j):
            return F.cross_entropy(f[i] @ cents[j].T, y[j], weight=weights[j])

        loss = (ce(0, 0) + ce(1, 1)) / 4 + (ce(0, 1) + ce(1, 0)) / 4
        self.opt.zero_grad(set_to_none=True)
        loss.backward()
        self.opt.step()
        return loss.detach()

    def epoch(self, number):
        a, n = self.a, len(self.X)
        start = self.now()
        self.P = [sample_params(n, self.dev, self.g) for _ in range(2)]
        self.G = sample_geo(n, self.dev, self.g)
        order = torch.randperm(n, generator=self.g).to(self.dev)
        self.net.train()
        cents, kmeans_loss = zip(*(self.kmeans(view, order) for view in (0, 1)))
        kmeans = self.now()
        self.net.eval()
        labels, weights = zip(*(self.label(view, order, cents[view]) for view in (0, 1)))
        label = self.now()
        self.net.train()
        batches = torch.randperm(n, generator=self.g).to(self.dev).split(a.batch)
        losses = [self.step(ix, cents, labels, weights) for ix in batches]
        end = self.now()
        out = {"epoch": number, "images": n, "kmeans_s": kmeans - start, "label_s": label - kmeans, "train_s": end - label}
        out.update(epoch_s=end - start, img_per_s=n / (end - start), train_img_per_s=n / (end - label))
        out.update(kmeans_loss=[float(loss) for loss in kmeans_loss], loss=float(torch.stack(losses).mean()))
        if self.val:
            out.update(self.evaluate(cents[0]))
        if self.cuda:
            out["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        return out

    @torch.no_grad()
    def evaluate(self, C):
        """Accuracy and mIoU on the validation scenes, clusters matched to classes one to one."""
        import numpy as np
        from scipy.optimize import linear_sum_assignment

        a, (X, Y, classes) = self.a, self.val
        K = max(a.k, classes)
        H = np.zeros((K, K))
        self.net.eval()
        for s in range(0, len(X), a.batch):
            x = (X[s : s + a.batch].to(self.dev).float() / 255 - self.mean) / self.std
            with self.amp():
                f = self.forward(x)
            scores = torch.einsum("bchw,kc->bkhw", F.normalize(f.float(), dim=1), C)
            pred = F.interpolate(scores, size=(a.res, a.res), mode="bilinear").argmax(1).cpu()
            y = Y[s : s + a.batch]
            ok = y >= 0
            H += np.bincount((y[ok] * K + pred[ok]).numpy(), minlength=K * K).reshape(K, K)
        rows, columns = linear_sum_assignment(-H)
        acc = 100 * H[rows, columns].sum() / H.sum()
        H = H[:, columns]
        hit = np.diag(H)
        iou = hit / np.maximum(H.sum(0) + H.sum(1) - hit, 1)
        return {"acc": acc, "miou": 100 * iou[:classes].mean(), "classes": classes}


def main():
    peer = Peer(arguments())
    for number in range(peer.a.epochs):
        print(json.dumps(peer.epoch(number)), flush=True)


main()
