"""What the ImageNet weights inside the binary make of one scene: torchvision's ResNet-18 in eval mode, in float64.

Read: src/net/weights/imagenet/resnet18.safetensors, and scene.png beside this file (96 rows, 128 columns, drawn by `picie scenes`),
normalised as torchvision does: RGB/255, less (0.485, 0.456, 0.406), over (0.229, 0.224, 0.225).

Stored, NHWC: `stageN` for N = 2..5, the output of layer1..layer4: of the larger maps every so many-th pixel (rows, channels):
every 64th of layer1's 24·32, every 16th of layer2's, every 4th of layer3's, all of layer4's 3·4.
"""
import pathlib

import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file

HERE = pathlib.Path(__file__).parent
WEIGHTS = HERE.parent.parent / "src/net/weights/imagenet/resnet18.safetensors"


def make():
    net = torchvision.models.resnet18(weights=None)
    missing, unexpected = net.load_state_dict({k: v.float() for k, v in load_file(WEIGHTS).items()}, strict=False)
    assert not unexpected and all(name.startswith("fc.") or name.endswith("num_batches_tracked") for name in missing)
    net = net.double().eval()
    x = torch.from_numpy(np.array(Image.open(HERE / "scene.png").convert("RGB"))).double() / 255
    x = ((x - torch.tensor([0.485, 0.456, 0.406]).double()) / torch.tensor([0.229, 0.224, 0.225]).double()).permute(2, 0, 1)[None]
    out = {}
    with torch.no_grad():
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        for n, layer, every in ((2, net.layer1, 64), (3, net.layer2, 16), (4, net.layer3, 4), (5, net.layer4, 1)):
            x = layer(x)
            out[f"stage{n}"] = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])[::every].float()
    return out
