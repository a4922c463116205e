"""Whether cuDNN's fused norms pay: the 3×3 convolutions of the network in bf16 and in f16, and in f16 with batch norm and ReLU of their
input and the statistics of their output, which cuDNN fuses in f16 alone. The A/B is bf16 with the passes that the norm takes then,
which `picie bench` times, against f16 without them.

With a GPU, whose memory PyTorch hands out, the first engines of each graph are timed; a line of JSON tells the best. Without one
(--ask) cuDNN is asked what it would offer an H100: engines.py says what that needs.

usage: fused.py [--images 256] [--size 320] [--runs 20] [--engines 3] [--ask] [--cudnn FOLDER_OF_nvidia/cudnn]
"""
import argparse
import ctypes
import json
import statistics

from backend import TYPES, Descriptor, Library, configurations, convolution, described, finalised, folder, h100, operation, pointwise, tensor

# Layer: pixels of the image to a side of its maps, and channels.
LAYERS = {"layer1": (4, 64), "layer2": (8, 128), "layer3": (16, 256), "layer4": (32, 512)}
KINDS = ("forward", "weights", "data")
VARIANTS = (("bf16", False), ("f16", False), ("f16", True))


class Graph:
    """A convolution (n, c, side, side) ∗ (c, c, 3, 3) in one direction, alone or with the norm before it."""

    def __init__(self, library, kind, act, fused, images, side, channels):
        self.library, self.f32 = library, library.number["CUDNN_DATA_FLOAT"]
        self.name, self.act = act, library.number[f"CUDNN_DATA_{TYPES[act]}"]
        self.map, self.filter, self.row = [images, channels, side, side], [channels, channels, 3, 3], [1, channels, 1, 1]
        self.tensors, self.between, self.operations = {}, 100, []
        getattr(self, kind)(fused)

    def memory(self, dims, wide=False):
        """A tensor in memory, of activations or f32."""
        uid = len(self.tensors) + 1
        self.tensors[uid] = (dims, wide)
        return tensor(self.library, uid, dims, self.f32 if wide else self.act)

    def pointwise(self, mode, out=None, **tensors):
        """An op on each pixel of a map; what it leaves is f32 and stays inside of the graph, unless it is given."""
        if out is None:
            self.between += 1
            out = tensor(self.library, self.between, self.map, self.f32, True)
        name = "DXDESC" if "DYDESC" in tensors else "YDESC"
        self.operations.append(pointwise(self.library, mode, dict(tensors, **{name: out})))
        return out

    def convolution(self, kind, **tensors):
        self.operations.append(convolution(self.library, kind, 1, 1, tensors))

    def normed(self, x):
        """relu(x·scale + shift), the norm of the convolution before."""
        z = self.pointwise("ADD", XDESC=self.pointwise("MUL", XDESC=x, BDESC=self.memory(self.row)), BDESC=self.memory(self.row))
        return self.pointwise("RELU_FWD", XDESC=z)

    def forward(self, fused):
        x, w, y = self.memory(self.map), self.memory(self.filter), self.memory(self.map)
        self.convolution("FORWARD", X=self.normed(x) if fused else x, W=w, Y=y)
        if fused:
            numbers = dict(MODE=("GENSTATS_MODE", self.library.number["CUDNN_GENSTATS_SUM_SQSUM"]), MATH_PREC=("DATA_TYPE", self.f32))
            sums = dict(SUMDESC=self.memory(self.row, True), SQSUMDESC=self.memory(self.row, True))
            self.operations.append(operation(self.library, "GEN_STATS", "GENSTATS", numbers, dict(XDESC=y, **sums)))

    def weights(self, fused):
        x, dw, dy = self.memory(self.map), self.memory(self.filter), self.memory(self.map)
        self.convolution("BACKWARD_FILTER", X=self.normed(x) if fused else x, DW=dw, DY=dy)

    def data(self, fused):
        w, dy, out = self.memory(self.filter), self.memory(self.map), self.memory(self.map)
        if not fused:
            return self.convolution("BACKWARD_DATA", DX=out, W=w, DY=dy)
        # The norm before is made again from its input x, for the mask of its ReLU; then come the sums of its gradients.
        dz = tensor(self.library, 99, self.map, self.f32, True)
        self.convolution("BACKWARD_DATA", DX=dz, W=w, DY=dy)
        x, mean, inverse, scale, shift = self.memory(self.map), *(self.memory(self.row, True) for _ in range(4))
        z = self.pointwise("SUB", XDESC=x, BDESC=mean)
        for row in (inverse, scale):
            z = self.pointwise("MUL", XDESC=z, BDESC=row)
        z = self.pointwise("ADD", XDESC=z, BDESC=shift)
        self.pointwise("RELU_BWD", XDESC=z, DYDESC=dz, out=out)
        names = ("DBN_SCALE_DESC", "DBN_BIAS_DESC", "EQ_DY_SCALE_DESC", "EQ_X_SCALE_DESC", "EQ_BIAS")
        sums = {name: self.memory(self.row, True) for name in names}
        tensors = dict(MEAN_DESC=mean, INVSTD_DESC=inverse, BN_SCALE_DESC=scale, X_DESC=x, DY_DESC=out, **sums)
        numbers = dict(MATH_PREC=("DATA_TYPE", self.f32))
        self.operations.append(operation(self.library, "BN_BWD_WEIGHTS", "BN_BWD_WEIGHTS", numbers, tensors))


class Runner:
    """Runs graphs on the first GPU, on PyTorch's stream and in its memory."""

    def __init__(self, library, runs):
        import torch

        self.torch, self.library, self.runs = torch, library, runs
        torch.cuda.init()
        self.handle = ctypes.c_void_p()
        library.check("create a handle", library.calls.cudnnCreate(ctypes.byref(self.handle)))
        stream = torch.cuda.current_stream()
        library.check("set the stream", library.calls.cudnnSetStream(self.handle, ctypes.c_void_p(stream.cuda_stream)))

    def median_us(self, graph, config):
        """Median microseconds of a configuration, between events."""
        torch = self.torch
        plan = Descriptor(self.library, "EXECUTION_PLAN").set("EXECUTION_PLAN_HANDLE", "HANDLE", self.handle.value)
        plan.set("EXECUTION_PLAN_ENGINE_CONFIG", "BACKEND_DESCRIPTOR", config).done()
        room = plan.get("EXECUTION_PLAN_WORKSPACE_SIZE", "INT64", 1)[0]
        acts = dict(bf16=torch.bfloat16, f16=torch.float16)[graph.name]
        # NOTE: no zeros, which cost less power and so run at a higher clock.
        held = [torch.randn(dims, dtype=torch.float32 if wide else acts, device="cuda") for dims, wide in graph.tensors.values()]
        workspace = torch.empty(max(room, 16), dtype=torch.uint8, device="cuda")
        variants = (Descriptor(self.library, "VARIANT_PACK").set("VARIANT_PACK_UNIQUE_IDS", "INT64", *graph.tensors)
                    .set("VARIANT_PACK_DATA_POINTERS", "VOID_PTR", *(part.data_ptr() for part in held))
                    .set("VARIANT_PACK_WORKSPACE", "VOID_PTR", workspace.data_ptr()).done())
        times = []
        for _ in range(self.runs + 3):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            self.library.check("execute", self.library.calls.cudnnBackendExecute(self.handle, plan.raw, variants.raw))
            end.record()
            end.synchronize()
            times.append(1000 * begin.elapsed_time(end))
        return statistics.median(times[3:])


def best(runner, graph, engines):
    """The number of the fastest of a graph's first engines, and its microseconds; engines that cannot run it are passed over."""
    found = []
    for config in configurations(runner.library, graph.operations, handle=runner.handle.value)[:engines]:
        try:
            found.append((runner.median_us(graph, config), described(runner.library, config)[0]))
        except RuntimeError:
            continue
    us, engine = min(found, default=(None, None))
    return dict(us=us and round(us, 1), engine=engine)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--engines", type=int, default=3, help="engines of each graph that are timed, in the heuristics' order")
    parser.add_argument("--ask", action="store_true", help="time nothing: say what cuDNN would offer an H100")
    parser.add_argument("--cudnn", help="the folder nvidia/cudnn of a Python environment [default: this one's]")
    args = parser.parse_args()
    library = Library(folder(args.cudnn))
    runner = None if args.ask else Runner(library, args.runs)
    for layer, (stride, channels) in LAYERS.items():
        for kind in KINDS:
            for act, fused in VARIANTS:
                graph = Graph(library, kind, act, fused, args.images, args.size // stride, channels)
                row = dict(fused=layer, kind=kind, type=act, norm=fused)
                if runner:
                    row.update(best(runner, graph, args.engines))
                else:
                    device = h100(library)
                    configs = configurations(library, graph.operations, device)
                    row.update(configurations=len(configs))
                    if configs:
                        ms, refused = finalised(library, configs[0], device)
                        row.update(first=" ".join(map(str, described(library, configs[0]))) + refused, finalised_ms=round(ms, 1))
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
