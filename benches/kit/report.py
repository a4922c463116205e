"""Reads what the stages of run.sh leave and writes OUT/result.json and OUT/summary.txt anew after each of them.

usage: report.py COMMAND ...   ($OUT and what run.sh exports are in the environment; each command says what it does)
Nothing but Python's own library is needed.
"""
import csv
import ctypes
import datetime
import glob
import json
import os
import re
import statistics
import subprocess
import sys

# The stems of cuda/*.cu: with an underscore, how the names of picie's own kernels begin.
STEMS = "adam confusion conv head iic kmeans norm softmax stem top view".split()
KERNEL = re.compile(rf"\b(?:{'|'.join(STEMS)})_\w+_(?:f32|bf16|f16)\b")
# Column of the table: metrics of ncu, which are added up. Times are in ns, sizes in bytes.
METRICS = {
    "ns": ["gpu__time_duration.sum"],
    "dram_bytes": ["dram__bytes_read.sum", "dram__bytes_write.sum"],
    "sectors_a_load": ["l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio"],
    "sectors_a_store": ["l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_st.ratio"],
    "bank_conflicts": [
        "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum",
        "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum",
    ],
    "registers": ["launch__registers_per_thread"],
}
PHASES = ["k-means", "labels", "train", "epoch"]


def path(name):
    return os.path.join(os.environ["OUT"], name)


def load():
    with open(path("result.json")) as file:
        return json.load(file)


def save(result):
    for name, text in (("result.json", json.dumps(result, indent=1) + "\n"), ("summary.txt", summary(result))):
        with open(path(name + ".new"), "w") as file:
            file.write(text)
        os.replace(path(name + ".new"), path(name))


def read(name):
    try:
        with open(name, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def new():
    """Begins the result."""
    commit = read(os.path.join(os.environ["KIT"], "commit")).strip() or "unknown"
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    begun = {"date": now, "commit": commit, "gpu": os.environ["GPU"], "software_gpu": os.environ["SOFTWARE"] or None}
    save({**begun, "sheet": {}, "stages": [], "bench": {}})


def stage(name, state, nanoseconds, note):
    """Adds a line to the table of stages."""
    result = load()
    result["stages"].append({"stage": name, "state": state, "seconds": round(int(nanoseconds) / 1e9, 1), "note": note[:200]})
    save(result)


def libraries():
    """Folders of cuDNN, cuBLAS and NVRTC among this Python's packages, with colons between."""
    found = []
    for folder in sys.path:
        for lib in sorted(glob.glob(os.path.join(folder, "nvidia", "*", "lib"))):
            if any(glob.glob(os.path.join(lib, name)) for name in ("libcudnn.so*", "libcublasLt.so*", "libnvrtc.so*")):
                found.append(lib)
    print(":".join(dict.fromkeys(found)))


def stems():
    """How kernels' names begin, as a regular expression."""
    print(f"({'|'.join(STEMS)})")


def metrics():
    """The metrics for ncu."""
    print(",".join(sum(METRICS.values(), [])))


def sheet():
    """Device, driver, clocks and cuDNN."""
    ask = "name,driver_version,vbios_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit,persistence_mode"
    result = load()
    facts = result["sheet"]
    try:
        ran = subprocess.run(["nvidia-smi", f"--query-gpu={ask}", "--format=csv"], capture_output=True, text=True, timeout=8)
        rows = list(csv.reader(ran.stdout.splitlines(), skipinitialspace=True))
        facts.update(zip(rows[0], rows[1]))
    except (OSError, IndexError, subprocess.TimeoutExpired):
        facts["nvidia-smi"] = "does not answer"
    for name in ("libcudnn.so.9", "libcudnn.so"):
        try:
            facts["cudnn"] = ctypes.CDLL(name).cudnnGetVersion()
            break
        except OSError:
            continue
    facts.setdefault("cudnn", "not found")
    facts["cpus"], facts["python"] = os.cpu_count(), sys.version.split()[0]
    print(json.dumps(facts))
    save(result)


def demo(metrics):
    """Keeps the scores of a training run's last epoch; prints them."""
    last = json.loads(read(metrics).splitlines()[-1])
    result = load()
    result["demo"] = last
    save(result)
    print(f"demo at mIoU {last['miou']:.1f} after {last['epoch']} epochs")


def planning(text):
    """Seconds of the first phase "choose engines" that picie told on stderr, behind lines of its progress; none where it told of none."""
    found = re.search(r"^choose engines\b.* in ([\d.]+) s\b", text, re.MULTILINE)
    return float(found.group(1)) if found else None


def bench(name, report, said=""):
    """Keeps a report of picie bench, with what it said on stderr; prints its note."""
    with open(report) as file:
        told = json.load(file)
    told["planning_s"] = planning(read(said))
    # NOTE: a line for each call would be most of the file; medians of epochs and quartiles stay.
    for op in told["ops"]:
        op.pop("samples_us", None)
    result = load()
    result["sheet"]["picie"] = told.pop("device")
    result["bench"][name] = told
    save(result)
    epoch = told["phases"][-1]["images_per_s"]
    plan = "" if told["planning_s"] is None else f", engines chosen in {told['planning_s']:.1f} s"
    print(f"{name} {epoch:.1f} images/s{plan}")


def rows_of(report):
    """The lines of JSON among what a program printed."""
    return [json.loads(line) for line in read(report).splitlines() if line.startswith("{")]


def keep_rows(name, report):
    """Keeps the lines of JSON of a report under a name; returns them."""
    result = load()
    result[name] = rows_of(report)
    save(result)
    return result[name]


def stem(report):
    """Keeps what cuDNN takes for the first layer, as PyTorch picks its engines."""
    of = {(row["stem"], row["channels"]): row["us"] for row in keep_rows("stem", report)}
    each = [f"{what} {of[what, 4]:.0f} and {of[what, 8]:.0f}" for what in ("forward", "weights")]
    print(f"first layer by cuDNN with 4 and 8 channels, µs: {', '.join(each)}")


def fused(report):
    """Keeps what convolutions take with and without the norm; prints the sums of each kind in bf16, f16, and f16 with the norm inside."""
    rows = keep_rows("fused", report)
    said = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        times = []
        for act, norm in (("bf16", False), ("f16", False), ("f16", True)):
            us = [row["us"] for row in rows if (row["kind"], row["type"], row["norm"]) == (kind, act, norm)]
            times.append("none" if not us or None in us else f"{sum(us):.0f}")
        said.append(f"{kind} {', '.join(times)}")
    print(f"3×3 convolutions by cuDNN in bf16, f16, and f16 with the norm, µs: {'; '.join(said)}")


def peer(name, report):
    """Keeps the peer's median images/s of each phase, of all epochs but the first; prints the ratio to picie's."""
    rows = rows_of(report)
    keys = dict(zip(PHASES, ("kmeans_s", "label_s", "train_s", "epoch_s")))
    rates = {phase: statistics.median(row["images"] / row[key] for row in rows[1:]) for phase, key in keys.items()}
    result = load()
    result.setdefault("peer", {})[name] = {"rates": rates, "epochs": rows}
    save(result)
    warm = result["bench"].get("warm")
    ratio = f", picie {rates_of(warm)['epoch'] / rates['epoch']:.2f} times as fast" if warm and not result["software_gpu"] else ""
    print(f"{name} {rates['epoch']:.1f} images/s{ratio}")


def rates_of(told):
    """images/s by phase."""
    return {phase["name"]: phase["images_per_s"] for phase in told["phases"]}


def sanitize(check, log):
    """Prints what a tool of compute-sanitizer found; fails on errors, of initcheck on those of picie's own kernels only."""
    text = read(log)
    total = re.search(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)", text)
    if not total:
        print(f"{check} did not end")
        return 1
    ours = sorted(set(KERNEL.findall(text)))
    print(f"{check} {total.group(1)}{' in ' + ', '.join(ours[:4]) if ours else ''}")
    # NOTE: whether cuDNN's kernels read what nobody wrote is not ours to mend.
    return int(bool(ours) if check == "initcheck" else total.group(1) != "0")


def number(text):
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def table(text):
    """Kernels of a CSV that ncu printed, a row each: the first launch of every name. Pages are wide (a metric a column) or long."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    launches = {}
    for row in csv.DictReader(lines[start:]):
        # The line below the head has units and no number.
        if (row.get("ID") or "").isdigit():
            seen = launches.setdefault(row["ID"], {"kernel": row["Kernel Name"].split("(")[0]})
            seen.update({row["Metric Name"]: row["Metric Value"]} if "Metric Name" in row else row)
    rows = {}
    for seen in launches.values():
        if seen["kernel"] in rows:
            continue
        row = rows[seen["kernel"]] = {"kernel": seen["kernel"]}
        for column, names in METRICS.items():
            values = [number(seen.get(name) or "") for name in names]
            row[column] = None if None in values else sum(values)
    return sorted(rows.values(), key=lambda row: -(row["ns"] or 0))


def kernels(log, report):
    """Keeps the table of kernels, each beside the floor of the op of its name in a report of picie bench; fails below ten kernels."""
    rows = table(read(log))
    # ncu may print beside it.
    told = [json.loads(line) for line in read(report).splitlines() if line.startswith("{")]
    told = told[-1] if told else {"ops": [], "peaks": {"copies": []}}
    # The largest come last.
    copies = [copy["gb_per_s"] for copy in told["peaks"]["copies"]] or [None]
    for row in rows:
        name = KERNEL.match(row["kernel"]) and row["kernel"].rsplit("_", 1)[0]
        row["floor_us"] = max((op["floor_us"] for op in told["ops"] if op["op"].split()[0] == name), default=None)
        row["gb_per_s"] = row["dram_bytes"] / row["ns"] if row["ns"] and row["dram_bytes"] is not None else None
    result = load()
    result["profile"] = {"copy_gb_per_s": copies[-1], "kernels": rows}
    save(result)
    print(f"{len(rows)} kernels in kernels.csv")
    return int(len(rows) < 10)


def grid(head, rows):
    """Lines of a table: the first column to the left, the others to the right."""

    def cell(value):
        return "-" if value is None else value if isinstance(value, str) else f"{value:.1f}"

    cells = [head] + [[cell(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    line = lambda row: "  ".join(t.ljust(w) if i == 0 else t.rjust(w) for i, (t, w) in enumerate(zip(row, widths)))
    return [line(row).rstrip() for row in cells]


def summary(result):
    gpu = result["gpu"]
    lines = [f"picie {result['commit']} on {gpu}, {result['date']}"]
    if result["software_gpu"]:
        lines.append(f"SOFTWARE GPU: no figure here is a speed. {result['software_gpu']}")
    lines.append("")
    lines += [f"{s['stage']:12} {s['state']:12} {s['seconds']:6.1f} s  {s['note']}".rstrip() for s in result["stages"]]
    rates = {name: rates_of(told) for name, told in result["bench"].items()}
    rows = [[f"picie, {name}"] + [rate.get(phase) for phase in PHASES] for name, rate in rates.items()]
    ours = rates.get("warm", {})
    for name, told in result.get("peer", {}).items():
        rows.append([f"PyTorch, {name}"] + [told["rates"][phase] for phase in PHASES])
        if result["software_gpu"]:
            continue
        ratios = [f"{ours[phase] / told['rates'][phase]:.2f}×" if phase in ours else None for phase in PHASES]
        rows.append([f"picie / {name}"] + ratios)
    if rows:
        lines += [""] + grid(["images/s"] + PHASES, rows)
    if result.get("profile"):
        columns = ["gb_per_s", "sectors_a_load", "sectors_a_store", "bank_conflicts", "registers"]
        head = ["kernel, first launch", "µs", "floor of op", "MB", "GB/s", "sectors/load", "/store", "conflicts", "registers"]
        rows = [
            [row["kernel"], row["ns"] and row["ns"] / 1e3, row["floor_us"], row["dram_bytes"] and row["dram_bytes"] / 1e6]
            + [row[column] for column in columns]
            for row in result["profile"]["kernels"]
        ]
        lines += [""] + grid(head, rows)
        lines.append(f"a copy moves {result['profile']['copy_gb_per_s'] or 0:.0f} GB/s")
    if not result["software_gpu"]:
        name = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
        lines += ["", f"to keep: cp {path('result.json')} benches/results/{result['date'][:10]}-{name}.json"]
    return "\n".join(lines) + "\n"


COMMANDS = [new, stage, libraries, stems, metrics, sheet, demo, bench, stem, fused, peer, sanitize, kernels]

if __name__ == "__main__":
    commands = {command.__name__: command for command in COMMANDS}
    sys.exit(commands[sys.argv[1]](*sys.argv[2:]))
