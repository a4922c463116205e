"""Writes the goldens that the tests compare with: `python tests/golden/make.py [STEM...]`.

Each stem is a file beside this one with `make() -> dict[str, torch.Tensor]`, tensors in float32, uint8 or int64 and NHWC;
`weights`, which has a `main()` instead, writes files in the formats of others to a folder of its own.
Made with torch 2.11.0 and torchvision 0.26.0 on a CPU; the version is stored in the file's metadata.
Together they stay below 1 MB.
"""
import importlib
import pathlib
import sys

import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
STEMS = sorted(p.stem for p in HERE.glob("*.py") if p.stem != "make")


def main():
    sys.path.insert(0, str(HERE))
    for stem in sys.argv[1:] or STEMS:
        torch.manual_seed(sum(map(ord, stem)))
        module = importlib.import_module(stem)
        if not hasattr(module, "make"):
            module.main()
            continue
        tensors = {k: v.detach().contiguous() for k, v in module.make().items()}
        save_file(tensors, HERE / f"{stem}.safetensors", metadata={"torch": torch.__version__})
        print(f"{stem}: {len(tensors)} tensors, {(HERE / f'{stem}.safetensors').stat().st_size} bytes")


main()
