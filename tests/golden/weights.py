"""Writes the small weights files of tests/golden/weights/ (version 1, torch 2.11, safetensors 0.8).

    python tests/golden/weights.py

The old PyTorch format numbers storages by their addresses, so those files differ from run to run in a few bytes.
Values are multiples of 1/4 counted up from -3, so that every element type holds them exactly and the tests can name them.
"""

import argparse
import collections
import os
import pathlib
import pickle
import struct
import sys
import zipfile

import torch
from safetensors.torch import save_file
import torchvision
from torch import nn

HERE = pathlib.Path(__file__).parent / "weights"


def count(*shape, dtype=torch.float32):
    return (torch.arange(torch.Size(shape).numel()) * 0.25 - 3).reshape(shape).to(dtype)


def assorted():
    """One tensor of each element type and of each kind of stride, and the containers of a checkpoint."""
    whole = count(5, 6)
    tensors = collections.OrderedDict(
        plain=count(2, 3, 4),
        permuted=count(2, 3, 4).permute(2, 0, 1),
        channels_last=count(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        whole=whole,
        window=whole[1:4, 2:6:3],
        expanded=count(3, 1).expand(3, 4),
        parameter=nn.Parameter(count(7)),
        empty=torch.zeros(0, 3),
        f64=count(5, dtype=torch.float64),
        f16=count(5, dtype=torch.float16),
        bf16=count(5, dtype=torch.bfloat16),
        i64=torch.tensor(-(2**40) - 1),
        i32=torch.tensor([-70000, 5], dtype=torch.int32),
        i16=torch.tensor([-300, 5], dtype=torch.int16),
        i8=torch.tensor([-100, 5], dtype=torch.int8),
        u16=torch.tensor([65535, 5], dtype=torch.uint16),
        u8=torch.tensor([255, 5], dtype=torch.uint8),
        bool=torch.tensor([True, False]),
    )
    # The version numbers of layers ride along like this in every state_dict.
    tensors._metadata = collections.OrderedDict({"": {"version": 1}})
    args = argparse.Namespace(K_train=27, arch="resnet18", lr=1e-4, grey=True, restart_path=None, sizes=(1, -2), huge=2**60)
    defaults = collections.defaultdict(dict, {"a": frozenset({7})})
    return {"epoch": 3, "args": args, "state_dict": tensors, "extra": defaults, "name": "grün", "optimizer": {"left": whole + 1}}


def released():
    """A checkpoint as the released code saves it, from a network of its structure and a fraction of its size; in the old
    format, which is that of the PyTorch its environment names."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(4, 4, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(4)

    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 4, 7, bias=False)
            self.bn1 = nn.BatchNorm2d(4)
            self.layer1 = nn.Sequential(Block())

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer4 = nn.Conv2d(4, 6, 1)
            self.layer3 = nn.Conv2d(5, 6, 1)
            self.layer2 = nn.Conv2d(7, 6, 1)
            self.layer1 = nn.Conv2d(8, 6, 1)

    class Fpn(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = Backbone()
            self.decoder = Decoder()

    model = nn.DataParallel(Fpn())
    classifiers = [nn.DataParallel(nn.Conv2d(6, 3, 1)) for _ in range(2)]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    sum(p.square().sum() for p in model.parameters()).backward()
    optimizer.step()
    # Each tensor counts up from its own place in the list.
    with torch.no_grad():
        for module in [model, *classifiers]:
            for i, t in enumerate(t for t in module.state_dict().values() if t.is_floating_point()):
                t.copy_(count(*t.shape) + i)
    return {
        "epoch": 10,
        "args": argparse.Namespace(arch="resnet18", K_train=3, K_test=3, metric_test="cosine", cityscapes=False),
        "state_dict": model.state_dict(),
        "classifier1_state_dict": classifiers[0].state_dict(),
        "classifier2_state_dict": classifiers[1].state_dict(),
        "optimizer": optimizer.state_dict(),
    }


def torchvisions(backbone):
    """A state_dict with the names and shapes of torchvision's backbone, every element 1, in the bytes of one element."""
    state = getattr(torchvision.models, backbone)(weights=None).state_dict()
    one = torch.ones(1)
    return collections.OrderedDict((name, one.expand(t.shape) if t.dim() else t) for name, t in state.items())


def python2_era(path):
    """A file as PyTorch 0.1 wrote it under Python 2, which torchvision's first ImageNet weights are: byte strings,
    an OrderedDict made from a list of pairs, `Parameter` around `_rebuild_tensor`, a view of a storage."""

    def text(s):
        return b"U" + bytes([len(s)]) + s.encode()

    def tensor(view):
        storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("4711") + text("cpu") + b"K\x06" + view + b"tQ"
        return b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"K\x01K\x02K\x02\x86K\x01K\x02\x86tR"

    parameter = b"ctorch.nn.parameter\nParameter\n" + tensor(b"N") + b"\x85R\x88\x89N\x87b"
    buffer = tensor(b"(" + text("4712") + b"K\x01K\x05t")
    pairs = b"](](" + text("conv1.weight") + parameter + b"e](" + text("bn1.running_mean") + buffer + b"ee"
    with open(path, "wb") as out:
        pickle.dump(0x1950A86A20F9469CFC6C, out, 2)
        pickle.dump(1001, out, 2)
        pickle.dump({"protocol_version": 1001, "little_endian": True}, out, 2)
        out.write(b"\x80\x02ccollections\nOrderedDict\n" + pairs + b"\x85R.")
        out.write(b"\x80\x02](" + text("4711") + b"e.")
        out.write(struct.pack("<q6f", 6, *range(6)))


def rezip(source, path, method, change={}):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", method) as new:
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name), change.get(name.split("/")[-1], old.read(name)), method)


class Malicious:
    def __reduce__(self):
        return os.system, ("echo the pickle ran code",)


def main():
    torch.manual_seed(1)
    HERE.mkdir(exist_ok=True)
    torch.save(assorted(), HERE / "zip.pth")
    torch.save(assorted(), HERE / "protocol4.pth", pickle_protocol=4)
    legacy = assorted()
    # PyTorch itself cannot load 16-bit unsigned integers from its old format.
    del legacy["state_dict"]["u16"]
    torch.save(legacy, HERE / "legacy.pth", _use_new_zipfile_serialization=False)
    rezip(HERE / "zip.pth", HERE / "deflated.pth", zipfile.ZIP_DEFLATED)
    rezip(HERE / "zip.pth", HERE / "big_endian.pth", zipfile.ZIP_DEFLATED, {"byteorder": b"big"})
    python2_era(HERE / "python2.pth")
    for backbone in ("resnet18", "resnet34", "resnet50"):
        torch.save(torchvisions(backbone), HERE / f"{backbone}.pth")
    torch.save(released(), HERE / "released.pth.tar", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": {"a": count(2)}, "args": Malicious()}, HERE / "malicious.pth")
    # The name is in the archive; of this length the zip crate, left alone, looks for the directory in the wrong place.
    torch.save({"a": count(2, 2)}, HERE / "named_with_21_letters.pth")
    tensors = {k: v.detach().contiguous().clone() for k, v in assorted()["state_dict"].items()}
    save_file(tensors, HERE / "python.safetensors", metadata={"format": "pt"})
    print(sum(p.stat().st_size for p in HERE.iterdir()), "bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
