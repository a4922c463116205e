"""Views: torchvision's float ops in sequence, torch's interpolate, and Pillow's 8-bit ops.

`photo` rows are brightness, contrast, saturation, hue, sigma, grey, order; `crops` rows are top, left, side, flip.
"""
import math
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageFilter
from torchvision.transforms import _functional_tensor as T

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
FIXED = 0b11100100


def grey(img, num_output_channels=1):
    """Pillow's weights; torchvision's 0.2989 is the same number cut short."""
    y = (img * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(-3, keepdim=True)
    return y.expand(num_output_channels, *y.shape[1:])


def blur(img, sigma):
    r = math.ceil(3 * sigma)
    k = torch.exp(-torch.arange(-r, r + 1, dtype=torch.float64) ** 2 / (2 * sigma**2))
    k = (k / k.sum()).float()
    x = F.pad(img[:, None], (r, r, r, r), mode="replicate")
    return F.conv2d(F.conv2d(x, k[None, None, None]), k[None, None, :, None])[:, 0]


def photometric(img, draw):
    b, c, s, h, sigma, g, order = draw.tolist()
    with mock.patch.object(T, "rgb_to_grayscale", grey):
        for field in range(4):
            step = int(order) >> (2 * field) & 3
            img = [
                lambda: T.adjust_brightness(img, b),
                lambda: T.adjust_contrast(img, c),
                lambda: T.adjust_saturation(img, s),
                lambda: T.adjust_hue(img, h),
            ][step]()
        img = grey(img, 3) if g else img
    return blur(img, sigma) if sigma > 0 else img


def finish(img):
    """(3, h, w) in 0..1 → (h, w, 4), normalised."""
    return F.pad((img.permute(1, 2, 0) - MEAN) / STD, (0, 1))


def sobel(img):
    """(3, h, w) in 0..1 → (h, w, 2): IIC's two filters of the grey, torch's cross-correlation with zeros around."""
    dx = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    dy = torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]])
    return F.conv2d(grey(img)[None], torch.stack([dx, dy])[:, None], padding=1)[0].permute(1, 2, 0)


def render(images, index, photo, crops, size):
    out = []
    for i, m in enumerate(index.tolist()):
        img = images[m].permute(2, 0, 1).float() / 255
        img = img if photo is None else photometric(img, photo[i])
        if crops is None:
            img = F.interpolate(img[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
        else:
            top, left, side, flip = crops[i].tolist()
            img = img[:, top : top + side, left : left + side]
            img = F.interpolate(img[None], size, mode="bilinear", align_corners=False)[0]
            img = img.flip(2) if flip else img
        out.append(finish(img))
    return torch.stack(out)


def scenes(m, h, w):
    """Smooth colours with edges, noise, and some grey, black, white and saturated pixels."""
    y, x = torch.meshgrid(torch.linspace(0, 1, h), torch.linspace(0, 1, w), indexing="ij")
    img = torch.rand(m, 1, 1, 3) + torch.stack([x, y, x * y], -1) * (torch.rand(m, 1, 1, 3) * 2 - 1)
    img = torch.where((x + 2 * y > 1.3)[None, :, :, None], 0.9 * img.flip(-1), img) + 0.05 * torch.randn(m, h, w, 3)
    img[:, 2, :4] = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0]])
    img[:, 5, -3:] = torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 1, 0]])
    return (img.clamp(0, 1) * 255).round().byte()


def pillow(image, draw):
    """The released code's way: every step on 8-bit pixels."""
    b, c, s, h, sigma, _, _ = draw
    img = Image.fromarray(image.numpy())
    img = ImageEnhance.Brightness(img).enhance(b) if b != 1 else img
    img = ImageEnhance.Contrast(img).enhance(c) if c != 1 else img
    img = ImageEnhance.Color(img).enhance(s) if s != 1 else img
    if h:
        hue, sat, val = img.convert("HSV").split()
        hue = Image.fromarray(np.array(hue) + np.array(h * 255).astype(np.int32).astype(np.uint8))
        img = Image.merge("HSV", (hue, sat, val)).convert("RGB")
    return img.filter(ImageFilter.GaussianBlur(sigma)) if sigma else img


def make():
    out = {}
    images = scenes(3, 15, 19)
    out["images"] = images
    # Each step alone, both ways of its strength, then all in several orders.
    none = [1, 1, 1, 0, 0, 0, FIXED]
    alone = [(0, 0.7), (0, 1.3), (1, 0.6), (1, 1.3), (2, 0.0), (2, 1.4), (3, 0.1), (3, -0.45), (4, 0.3), (4, 2.0), (5, 1)]
    photo = [none]
    for field, value in alone:
        photo.append([value if i == field else n for i, n in enumerate(none)])
    orders = [FIXED, 0b00011011, 0b10001101, 0b01110010]
    photo += [[0.8, 1.3, 0.75, 0.08, s, g, o] for (s, g), o in zip([(0.9, 0), (0, 0), (1.4, 1), (0, 1)], orders)]
    photo = torch.tensor(photo, dtype=torch.float32)
    out["photo"] = photo
    index = torch.arange(len(photo)) * 2 % 3
    out["photo_index"] = index
    # The 4th channel is checked apart; at the stored size the geometry is the identity.
    out["photo_x"] = render(images, index, photo, None, (15, 19))[..., :3]

    crops = torch.tensor([[0, 4, 15, 0], [1, 2, 13, 1], [7, 11, 8, 0], [2, 0, 11, 1], [4, 8, 11, 1]])
    index = torch.tensor([2, 0, 0, 1, 2])
    out["crops"], out["crops_index"] = crops, index
    out["crops_x"] = render(images, index, None, crops, (11, 11))
    out["views_x"] = render(images, index, photo[-5:], crops, (10, 10))
    out["resized_x"] = render(images, index[:2], photo[-2:], None, (10, 10))
    out["wide_x"] = render(images, index[:2], None, None, (7, 27))
    square = scenes(2, 26, 26)
    out["square"] = square
    out["sobel_x"] = torch.stack([sobel(i.permute(2, 0, 1).float() / 255) for i in images])
    out["half_x"] = render(square, torch.tensor([1]), None, None, (13, 13))

    pil = [[0.7, 1, 1, 0, 0], [1, 1.3, 1, 0, 0], [1, 1, 0.7, 0, 0], [1, 1, 1, 0.1, 0], [1, 1, 1, 0, 0.8], [1, 1, 1, 0, 1.8]]
    pil = torch.tensor([p + [0, FIXED] for p in pil + [[1.2, 0.8, 1.3, -0.07, 1.0]]], dtype=torch.float32)
    out["pil_photo"] = pil
    out["pil_x"] = torch.stack([torch.from_numpy(np.array(pillow(square[1], p.tolist()))) for p in pil])
    half = [Image.fromarray(i.numpy()).resize((13, 13), Image.BILINEAR) for i in square]
    out["pil_half"] = torch.stack([torch.from_numpy(np.array(i)) for i in half])
    return out
