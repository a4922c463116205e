"""Which engines cuDNN offers for the network's convolutions, asked without a GPU.

cuDNN 9 plans for a GPU that is described to it (a device-properties descriptor), so this needs the library and no device:
pip install nvidia-cudnn-cu13==9.28.1.4 nvidia-cublas==13.1.0.3, and a libcuda.so.1 that can be opened (the driver's, or one of the
tests' software GPU: LD_LIBRARY_PATH). Prints a line a problem: how many configurations mode A of the heuristics lists, the first
engine with its notes, and what it takes to finalise its plan.

usage: engines.py [--batch 256] [--size 320] [--type bf16|f16|f32] [--bias act|f32] [--cudnn FOLDER_OF_nvidia/cudnn]
"""
import argparse
import ctypes
import glob
import json
import re
import sys
import time

# What the CUDA headers call an H100 SXM, as cuDNN wants it told.
H100 = dict(
    deviceName="NVIDIA H100 80GB HBM3", deviceVer=900, driverVer=13000, cudaDeviceId=0, pciDeviceId=0, isTccDriver=0, supportCoopLaunch=1,
    multiProcessorCount=132, warpSize=32, maxGridSize=[2147483647, 65535, 65535], maxBlockSize=[1024, 1024, 64], maxThreadsPerBlock=1024,
    maxThreadsPerSM=2048, maxCtasPerSM=32, regsPerBlock=65536, maxRegistersPerSM=65536, maxSharedMemoryPerBlock=49152,
    maxSharedMemoryPerBlockOptin=232448, reservedSharedMemoryPerBlock=1024, oversizedSharedMemoryPerBlock=0, l2CacheSize=52428800,
    totalGlobalMem=85029158912, smClockRateKHz=1980000, memClockRateKHz=2619000, memoryBusWidth=5120,
)
TYPES = {"f32": "FLOAT", "f16": "HALF", "bf16": "BFLOAT16"}


class Library:
    """libcudnn's backend functions, and the numbers of its header by name."""

    def __init__(self, folder):
        text = open(f"{folder}/include/cudnn_graph.h").read()
        self.number = {name: int(value) for name, value in re.findall(r"\b(CUDNN_\w+)(?: +\w+)?\s*=\s*(-?\d+)", text)}
        self.calls = ctypes.CDLL(glob.glob(f"{folder}/lib/libcudnn.so.9")[0], mode=ctypes.RTLD_GLOBAL)

    def name(self, kind, value):
        return next(n[len(kind):] for n, v in self.number.items() if n.startswith(kind) and v == value)

    def check(self, what, status):
        if status:
            said = ctypes.create_string_buffer(32768)
            self.calls.cudnnGetLastErrorString(said, len(said))
            raise RuntimeError(f"{what}: status {status}: {said.value.decode(errors='replace').strip()[:400]}")


class Descriptor:
    """A backend descriptor: attributes are set by the header's names without CUDNN_ATTR_, then it is finalised and read."""

    CELLS = {"INT64": ctypes.c_int64, "FLOAT": ctypes.c_float, "BOOLEAN": ctypes.c_bool, "CHAR": ctypes.c_char}

    def __init__(self, library, kind):
        self.library, self.kind, self.raw, self.held = library, kind, ctypes.c_void_p(), []
        made = library.calls.cudnnBackendCreateDescriptor(library.number[f"CUDNN_BACKEND_{kind}_DESCRIPTOR"], ctypes.byref(self.raw))
        library.check(f"create {kind}", made)

    def __del__(self):
        self.library.calls.cudnnBackendDestroyDescriptor(self.raw)

    def set(self, attribute, kind, *values):
        if kind == "BACKEND_DESCRIPTOR":
            self.held += values
            cells = (ctypes.c_void_p * len(values))(*[v.raw.value for v in values])
        elif kind == "CHAR":
            cells = ctypes.create_string_buffer(values[0], len(values[0]))
        else:
            cells = (self.CELLS.get(kind, ctypes.c_int32) * len(values))(*values)
        number = self.library.number
        done = self.library.calls.cudnnBackendSetAttribute(
            self.raw, number[f"CUDNN_ATTR_{attribute}"], number[f"CUDNN_TYPE_{kind}"], ctypes.c_int64(len(cells)), cells)
        self.library.check(f"set {attribute}", done)
        return self

    def done(self):
        self.library.check(f"finalise {self.kind}", self.library.calls.cudnnBackendFinalize(self.raw))
        return self

    def get(self, attribute, kind, room):
        """At most `room` numbers; how many there are where `room` is 0."""
        number, count = self.library.number, ctypes.c_int64()
        cells = (self.CELLS.get(kind, ctypes.c_int32) * max(room, 1))()
        got = self.library.calls.cudnnBackendGetAttribute(
            self.raw, number[f"CUDNN_ATTR_{attribute}"], number[f"CUDNN_TYPE_{kind}"], ctypes.c_int64(room), ctypes.byref(count),
            cells if room else None)
        self.library.check(f"get {attribute}", got)
        return list(cells[: count.value]) if room else count.value

    def parts(self, attribute, kind, room):
        """At most `room` descriptors that are attributes of this one."""
        made = [Descriptor(self.library, kind) for _ in range(room)]
        raw = (ctypes.c_void_p * room)(*[d.raw.value for d in made])
        number, count = self.library.number, ctypes.c_int64()
        got = self.library.calls.cudnnBackendGetAttribute(
            self.raw, number[f"CUDNN_ATTR_{attribute}"], number["CUDNN_TYPE_BACKEND_DESCRIPTOR"], ctypes.c_int64(room),
            ctypes.byref(count), raw)
        self.library.check(f"get {attribute}", got)
        return made[: count.value]


class Problem:
    """One convolution of the network in one direction; n·h·w·c ∗ k·r·r, as src/device/cuda/cudnn/graph.rs builds it."""

    def __init__(self, library, args, shape, kind, bias="", beta=0):
        self.library, self.shape, self.kind, self.chain, self.beta = library, shape, kind, bias, beta
        act = library.number[f"CUDNN_DATA_{TYPES[args.type]}"]
        self.act, self.f32 = act, library.number["CUDNN_DATA_FLOAT"]
        self.bias_type = act if args.bias == "act" else self.f32

    def tensor(self, uid, dims, ty, virtual=False):
        n, c, h, w = dims
        return (Descriptor(self.library, "TENSOR").set("TENSOR_DATA_TYPE", "DATA_TYPE", ty).set("TENSOR_DIMENSIONS", "INT64", *dims)
                .set("TENSOR_STRIDES", "INT64", h * w * c, 1, w * c, c).set("TENSOR_UNIQUE_ID", "INT64", uid)
                .set("TENSOR_BYTE_ALIGNMENT", "INT64", 16).set("TENSOR_IS_VIRTUAL", "BOOLEAN", virtual).done())

    def graph(self):
        n, h, c, k, r, stride, pad = self.shape
        q = (h + 2 * pad - r) // stride + 1
        x, w, y = (self.tensor(i, dims, self.act) for i, dims in enumerate([[n, c, h, h], [k, c, r, r], [n, k, q, q]], 1))
        chain = {"s": lambda: ("ADD", self.tensor(5, [n, k, q, q], self.act)),
                 "b": lambda: ("ADD", self.tensor(4, [1, k, 1, 1], self.bias_type)), "r": lambda: ("RELU_FWD", None)}
        chain = [chain[step]() for step in self.chain]
        number = self.library.number
        conv = (Descriptor(self.library, "CONVOLUTION").set("CONVOLUTION_COMP_TYPE", "DATA_TYPE", self.f32)
                .set("CONVOLUTION_CONV_MODE", "CONVOLUTION_MODE", number["CUDNN_CROSS_CORRELATION"])
                .set("CONVOLUTION_SPATIAL_DIMS", "INT64", 2).set("CONVOLUTION_PRE_PADDINGS", "INT64", pad, pad)
                .set("CONVOLUTION_POST_PADDINGS", "INT64", pad, pad).set("CONVOLUTION_FILTER_STRIDES", "INT64", stride, stride)
                .set("CONVOLUTION_DILATIONS", "INT64", 1, 1).done())
        at = self.tensor(100, [n, k, q, q], self.f32, True) if chain else y
        operation, prefix, names = {
            "forward": ("CONVOLUTION_FORWARD", "CONVOLUTION_FORWARD", "X W Y"), "dx": ("CONVOLUTION_BACKWARD_DATA", "CONVOLUTION_BWD_DATA", "DX W DY"),
            "dw": ("CONVOLUTION_BACKWARD_FILTER", "CONVOLUTION_BWD_FILTER", "X DW DY")}[self.kind]
        op = Descriptor(self.library, f"OPERATION_{operation}").set(f"OPERATION_{prefix}_CONV_DESC", "BACKEND_DESCRIPTOR", conv)
        for name, tensor in zip(names.split(), (x, w, at)):
            op.set(f"OPERATION_{prefix}_{name}", "BACKEND_DESCRIPTOR", tensor)
        op.set(f"OPERATION_{prefix}_ALPHA", "FLOAT", 1.0).set(f"OPERATION_{prefix}_BETA", "FLOAT", float(self.beta)).done()
        operations = [op]
        for i, (mode, b) in enumerate(chain):
            to = y if i + 1 == len(chain) else self.tensor(101 + i, [n, k, q, q], self.f32, True)
            mode = Descriptor(self.library, "POINTWISE").set("POINTWISE_MODE", "POINTWISE_MODE", number[f"CUDNN_POINTWISE_{mode}"])
            mode.set("POINTWISE_MATH_PREC", "DATA_TYPE", self.f32).done()
            op = Descriptor(self.library, "OPERATION_POINTWISE").set("OPERATION_POINTWISE_PW_DESCRIPTOR", "BACKEND_DESCRIPTOR", mode)
            op.set("OPERATION_POINTWISE_XDESC", "BACKEND_DESCRIPTOR", at)
            if b:
                op.set("OPERATION_POINTWISE_BDESC", "BACKEND_DESCRIPTOR", b)
            operations.append(op.set("OPERATION_POINTWISE_YDESC", "BACKEND_DESCRIPTOR", to).done())
            at = to
        return Descriptor(self.library, "OPERATIONGRAPH").set("OPERATIONGRAPH_OPS", "BACKEND_DESCRIPTOR", *operations).done()

    def ask(self, device):
        """(configurations of mode A, the first one's engine and notes, milliseconds to finalise its plan)"""
        heuristics = Descriptor(self.library, "ENGINEHEUR").set("ENGINEHEUR_OPERATION_GRAPH", "BACKEND_DESCRIPTOR", self.graph())
        heuristics.set("ENGINEHEUR_MODE", "HEUR_MODE", self.library.number["CUDNN_HEUR_MODE_A"])
        heuristics.set("ENGINEHEUR_DEVICEPROP", "BACKEND_DESCRIPTOR", device).done()
        count = heuristics.get("ENGINEHEUR_RESULTS", "BACKEND_DESCRIPTOR", 0)
        if count == 0:
            return 0, "none", 0.0
        config = heuristics.parts("ENGINEHEUR_RESULTS", "ENGINECFG", 1)[0]
        engine = config.parts("ENGINECFG_ENGINE", "ENGINE", 1)[0]
        notes = [self.library.name("CUDNN_NUMERICAL_NOTE_", n) for n in engine.get("ENGINE_NUMERICAL_NOTE", "NUMERICAL_NOTE", 64)]
        notes += [self.library.name("CUDNN_BEHAVIOR_NOTE_", n) for n in engine.get("ENGINE_BEHAVIOR_NOTE", "BEHAVIOR_NOTE", 64)]
        said = f"{engine.get('ENGINE_GLOBAL_INDEX', 'INT64', 1)[0]} {' '.join(notes).lower()}"
        plan = Descriptor(self.library, "EXECUTION_PLAN").set("EXECUTION_PLAN_ENGINE_CONFIG", "BACKEND_DESCRIPTOR", config)
        plan.set("EXECUTION_PLAN_DEVICEPROP", "BACKEND_DESCRIPTOR", device)
        start = time.perf_counter()
        try:
            plan.done()
        except RuntimeError as refused:
            said += f", refused: {str(refused)[:90]}"
        return count, said, 1000 * (time.perf_counter() - start)


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
    folder = args.cudnn or next(iter(f for path in sys.path for f in glob.glob(f"{path}/nvidia/cudnn")), None)
    if folder is None:
        sys.exit("engines.py: no cuDNN in this Python environment; pip install nvidia-cudnn-cu13 nvidia-cublas, or use --cudnn")
    library = Library(folder)
    device = Descriptor(library, "DEVICEPROP").set("DEVICEPROP_JSON_REPRESENTATION", "CHAR", json.dumps(H100).encode()).done()
    print(f"cuDNN {library.calls.cudnnGetVersion()}, {H100['deviceName']}, {args.type}, bias {args.bias}, {args.batch} images of {args.size}²")
    for name, problem in problems(library, args):
        count, first, ms = problem.ask(device)
        print(f"{name:42} {count:3} configurations; engine {first}; finalised in {ms:.1f} ms", flush=True)


if __name__ == "__main__":
    main()
