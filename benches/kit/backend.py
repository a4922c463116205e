"""cuDNN's backend functions through ctypes: descriptors, convolutions and pointwise ops as engines.py and fused.py build them."""
import ctypes
import glob
import json
import re
import sys
import time

TYPES = {"f32": "FLOAT", "f16": "HALF", "bf16": "BFLOAT16"}
# What the CUDA headers call an H100 SXM, as cuDNN wants it told.
H100 = dict(
    deviceName="NVIDIA H100 80GB HBM3", deviceVer=900, driverVer=13000, cudaDeviceId=0, pciDeviceId=0, isTccDriver=0, supportCoopLaunch=1,
    multiProcessorCount=132, warpSize=32, maxGridSize=[2147483647, 65535, 65535], maxBlockSize=[1024, 1024, 64], maxThreadsPerBlock=1024,
    maxThreadsPerSM=2048, maxCtasPerSM=32, regsPerBlock=65536, maxRegistersPerSM=65536, maxSharedMemoryPerBlock=49152,
    maxSharedMemoryPerBlockOptin=232448, reservedSharedMemoryPerBlock=1024, oversizedSharedMemoryPerBlock=0, l2CacheSize=52428800,
    totalGlobalMem=85029158912, smClockRateKHz=1980000, memClockRateKHz=2619000, memoryBusWidth=5120,
)


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

    CELLS = {"INT64": ctypes.c_int64, "FLOAT": ctypes.c_float, "BOOLEAN": ctypes.c_bool, "CHAR": ctypes.c_char,
             "HANDLE": ctypes.c_void_p, "VOID_PTR": ctypes.c_void_p}

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


def folder(given=None):
    """The folder nvidia/cudnn of a Python environment: the one given, or this one's."""
    found = given or next(iter(f for path in sys.path for f in glob.glob(f"{path}/nvidia/cudnn")), None)
    return found or sys.exit("no cuDNN in this Python environment; pip install nvidia-cudnn-cu13 nvidia-cublas, or use --cudnn")


def h100(library):
    """The descriptor of a GPU that is not there."""
    return Descriptor(library, "DEVICEPROP").set("DEVICEPROP_JSON_REPRESENTATION", "CHAR", json.dumps(H100).encode()).done()


def tensor(library, uid, dims, ty, virtual=False):
    """A map (n, c, h, w) of channels last."""
    n, c, h, w = dims
    return (Descriptor(library, "TENSOR").set("TENSOR_DATA_TYPE", "DATA_TYPE", ty).set("TENSOR_DIMENSIONS", "INT64", *dims)
            .set("TENSOR_STRIDES", "INT64", h * w * c, 1, w * c, c).set("TENSOR_UNIQUE_ID", "INT64", uid)
            .set("TENSOR_BYTE_ALIGNMENT", "INT64", 16).set("TENSOR_IS_VIRTUAL", "BOOLEAN", virtual).done())


def operation(library, kind, prefix, numbers, tensors):
    """An op whose attributes begin with `prefix`: numbers by name as (type, value), and descriptors of tensors by name."""
    op = Descriptor(library, f"OPERATION_{kind}")
    for name, (ty, value) in numbers.items():
        op.set(f"OPERATION_{prefix}_{name}", ty, value)
    for name, value in tensors.items():
        op.set(f"OPERATION_{prefix}_{name}", "BACKEND_DESCRIPTOR", value)
    return op.done()


def convolution(library, kind, stride, pad, tensors, beta=0):
    """One of a convolution's three directions, in f32 sums; `tensors` by the header's names."""
    number, f32 = library.number, library.number["CUDNN_DATA_FLOAT"]
    conv = (Descriptor(library, "CONVOLUTION").set("CONVOLUTION_COMP_TYPE", "DATA_TYPE", f32)
            .set("CONVOLUTION_CONV_MODE", "CONVOLUTION_MODE", number["CUDNN_CROSS_CORRELATION"]).set("CONVOLUTION_SPATIAL_DIMS", "INT64", 2)
            .set("CONVOLUTION_PRE_PADDINGS", "INT64", pad, pad).set("CONVOLUTION_POST_PADDINGS", "INT64", pad, pad)
            .set("CONVOLUTION_FILTER_STRIDES", "INT64", stride, stride).set("CONVOLUTION_DILATIONS", "INT64", 1, 1).done())
    short = kind.replace("BACKWARD", "BWD")
    numbers = dict(CONV_DESC=("BACKEND_DESCRIPTOR", conv), ALPHA=("FLOAT", 1.0), BETA=("FLOAT", float(beta)))
    return operation(library, f"CONVOLUTION_{kind}", f"CONVOLUTION_{short}", numbers, tensors)


def pointwise(library, mode, tensors):
    """An op on each element, in f32."""
    how = Descriptor(library, "POINTWISE").set("POINTWISE_MODE", "POINTWISE_MODE", library.number[f"CUDNN_POINTWISE_{mode}"])
    how.set("POINTWISE_MATH_PREC", "DATA_TYPE", library.number["CUDNN_DATA_FLOAT"]).done()
    return operation(library, "POINTWISE", "POINTWISE", dict(PW_DESCRIPTOR=("BACKEND_DESCRIPTOR", how)), tensors)


def configurations(library, operations, device=None, handle=None):
    """The configurations that mode A of the heuristics lists for a graph, of a described GPU or of the handle's.

    NOTE: it counts those that it then does not give, of types that no engine takes.
    """
    graph = Descriptor(library, "OPERATIONGRAPH")
    if handle is not None:
        graph.set("OPERATIONGRAPH_HANDLE", "HANDLE", handle)
    graph.set("OPERATIONGRAPH_OPS", "BACKEND_DESCRIPTOR", *operations).done()
    heuristics = Descriptor(library, "ENGINEHEUR").set("ENGINEHEUR_OPERATION_GRAPH", "BACKEND_DESCRIPTOR", graph)
    heuristics.set("ENGINEHEUR_MODE", "HEUR_MODE", library.number["CUDNN_HEUR_MODE_A"])
    if device is not None:
        heuristics.set("ENGINEHEUR_DEVICEPROP", "BACKEND_DESCRIPTOR", device)
    count = heuristics.done().get("ENGINEHEUR_RESULTS", "BACKEND_DESCRIPTOR", 0)
    return heuristics.parts("ENGINEHEUR_RESULTS", "ENGINECFG", count) if count else []


def finalised(library, config, device):
    """The milliseconds that it takes to finalise a configuration's plan, and why it is refused, if it is."""
    plan = Descriptor(library, "EXECUTION_PLAN").set("EXECUTION_PLAN_ENGINE_CONFIG", "BACKEND_DESCRIPTOR", config)
    plan.set("EXECUTION_PLAN_DEVICEPROP", "BACKEND_DESCRIPTOR", device)
    start, refused = time.perf_counter(), ""
    try:
        plan.done()
    except RuntimeError as e:
        refused = f", refused: {str(e)[:90]}"
    return 1000 * (time.perf_counter() - start), refused


def described(library, config):
    """The number of a configuration's engine, and its notes."""
    engine = config.parts("ENGINECFG_ENGINE", "ENGINE", 1)[0]
    notes = [library.name("CUDNN_NUMERICAL_NOTE_", n) for n in engine.get("ENGINE_NUMERICAL_NOTE", "NUMERICAL_NOTE", 64)]
    notes += [library.name("CUDNN_BEHAVIOR_NOTE_", n) for n in engine.get("ENGINE_BEHAVIOR_NOTE", "BEHAVIOR_NOTE", 64)]
    return engine.get("ENGINE_GLOBAL_INDEX", "INT64", 1)[0], " ".join(notes).lower()
