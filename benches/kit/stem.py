"""What PyTorch's choice of cuDNN's engines takes for the first layer: 7×7/2 of images to 64 channels, forward and the gradient of its
weights, with 4 channels and with 8. picie has kernels of its own for 4 (docs/convolutions.md); `picie bench` has their rows.

usage: stem.py [--images 256] [--size 320] [--device cuda] [--runs 20]
"""
import argparse
import json
import statistics
import time

import torch


def times(run, device, runs):
    """Microseconds of each of `runs` calls, of which the first few are not counted."""
    seconds = []
    for _ in range(runs + 3):
        if device != "cpu":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return [1e6 * s for s in seconds[3:]]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=int, default=20)
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    side = (args.size - 1) // 2 + 1
    for channels in (4, 8):
        of = dict(device=args.device, dtype=torch.bfloat16)
        last = dict(memory_format=torch.channels_last)
        x = torch.randn(args.images, channels, args.size, args.size, **of).contiguous(**last)
        w = torch.randn(64, channels, 7, 7, **of).contiguous(**last)
        dy = torch.randn(args.images, 64, side, side, **of).contiguous(**last)
        what = {
            "forward": lambda: torch.nn.functional.conv2d(x, w, stride=2, padding=3),
            "weights": lambda: torch.nn.grad.conv2d_weight(x, w.shape, dy, stride=2, padding=3),
        }
        for name, run in what.items():
            us = times(run, args.device, args.runs)
            row = dict(stem=name, channels=channels, images=args.images, size=args.size, us=round(statistics.median(us), 1))
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
