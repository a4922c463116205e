"""Which engines cuDNN offers for the network's convolutions, asked without a GPU.

cuDNN 9 plans for a GPU that is described to it (a device-properties descriptor), so this needs the library and no device:
pip install nvidia-cudnn-cu13==9.28.1.4 nvidia-cublas==13.1.0.3, and a libcuda.so.1 that can be opened (the driver's, or one of the
tests' software GPU: LD_LIBRARY_PATH). Prints a line a problem: how many configurations mode A of the heuristics lists, the first
engine with its notes, and what it takes to finalise its plan.

usage: engines.py [--batch 256] [--size 320] [--type bf16|f16|f32] [--bias act|f32] [--cudnn FOLDER_OF_nvidia/cudnn]
"""
import argparse

from backend import H100, TYPES, Library, configurations, convolution, described, finalised, folder, h100, pointwise, tensor


class Problem:
    """One convolution of the network in one direction; n·h·w·c ∗ k·r·r, as src/device/cuda/cudnn/graph.rs builds it."""

    def __init__(self, library, args, shape, kind, bias="", beta=0):
        self.library, self.shape, self.kind, self.chain, self.beta = library, shape, kind, bias, beta
        act = library.number[f"CUDNN_DATA_{TYPES[args.type]}"]
        self.act, self.f32 = act, library.number["CUDNN_DATA_FLOAT"]
        self.bias_type = act if args.bias == "act" else self.f32

    def operations(self):
        n, h, c, k, r, stride, pad = self.shape
        library, q = self.library, (h + 2 * pad - r) // stride + 1
        x, w, y = (tensor(library, i, dims, self.act) for i, dims in enumerate([[n, c, h, h], [k, c, r, r], [n, k, q, q]], 1))
        chain = {"s": lambda: ("ADD", tensor(library, 5, [n, k, q, q], self.act)),
                 "b": lambda: ("ADD", tensor(library, 4, [1, k, 1, 1], self.bias_type)), "r": lambda: ("RELU_FWD", None)}
        chain = [chain[step]() for step in self.chain]
        at = tensor(library, 100, [n, k, q, q], self.f32, True) if chain else y
        kind, names = {"forward": ("FORWARD", "X W Y"), "dx": ("BACKWARD_DATA", "DX W DY"), "dw": ("BACKWARD_FILTER", "X DW DY")}[self.kind]
        operations = [convolution(library, kind, stride, pad, dict(zip(names.split(), (x, w, at))), self.beta)]
        for i, (mode, b) in enumerate(chain):
            to = y if i + 1 == len(chain) else tensor(library, 101 + i, [n, k, q, q], self.f32, True)
            operations.append(pointwise(library, mode, dict(XDESC=at, **({"BDESC": b} if b else {}), YDESC=to)))
            at = to
        return operations

    def ask(self, device):
        """(configurations of mode A, the first one's engine and notes, milliseconds to finalise its plan)"""
        configs = configurations(self.library, self.operations(), device)
        if not configs:
            return 0, "none", 0.0
        ms, refused = finalised(self.library, configs[0], device)
        return len(configs), " ".join(map(str, described(self.library, configs[0]))) + refused, ms


def problems(library, args):
    n, s = args.batch, args.size
    layers = [("stem", (n, s, 4, 64, 7, 2, 3))]
    for level, (c, k) in enumerate([(64, 64), (64, 128), (128, 256), (256, 512)], 1):
        side = s // (4 << max(level - 2, 0))
        if level > 1:
            layers += [(f"layer{level} in", (n, side, c, k, 3, 2, 1)), (f"layer{level} down", (n, side, c, k, 1, 2, 0))]
        inner = s // (2 << level)
        layers += [(f"layer{level}", (n, inner, k, k, 3, 1, 1)), (f"lateral{level + 1}", (n, inner, k, 128, 1, 1, 0))]
    for name, shape in layers:
        for what, kind, chain, beta in [
            ("forward", "forward", "", 0), ("forward + bias, ReLU", "forward", "br", 0), ("forward + residual + bias, ReLU", "forward", "sbr", 0),
            ("data gradient", "dx", "", 0), ("data gradient, added", "dx", "", 1), ("weight gradient", "dw", "", 0)]:
            if not (name == "stem" and kind == "dx"):
                yield f"{name}: {what}", Problem(library, args, shape, kind, chain, beta)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--type", choices=TYPES, default="bf16")
    parser.add_argument("--bias", choices=["act", "f32"], default="act", help="the type of the bias: the activations', or f32")
    parser.add_argument("--cudnn", help="the folder nvidia/cudnn of a Python environment [default: this one's]")
    args = parser.parse_args()
    library = Library(folder(args.cudnn))
    device = h100(library)
    print(f"cuDNN {library.calls.cudnnGetVersion()}, {H100['deviceName']}, {args.type}, bias {args.bias}, {args.batch} images of {args.size}²")
    for name, problem in problems(library, args):
        count, first, ms = problem.ask(device)
        print(f"{name:42} {count:3} configurations; engine {first}; finalised in {ms:.1f} ms", flush=True)


if __name__ == "__main__":
    main()
