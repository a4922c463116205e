#!/usr/bin/env bash
# The stages of run.sh, which names one and exports what they need. A stage's note is its line in the summary; its exit code says
# whether it went well, 77 that it was skipped.
set -euo pipefail
cd "$WORK"

picie() { "$FILES/picie" "$@"; }
report() { "$PYTHON" "$KIT/report.py" "$@"; }
note() { echo "$*" | tee "$WORK/note"; }
skip() {
    note "$*"
    exit 77
}

# A tool of the CUDA toolkit.
tool() {
    local at
    for at in "$(command -v "$1" || true)" /usr/local/cuda*/bin/"$1" /opt/nvidia/nsight-compute/*/"$1"; do
        [ ! -x "$at" ] || { echo "$at" && return; }
    done
}

# A step within seconds, whatever computes it.
tiny=(--size 32 --stored 64 --batch 2 --batch-cluster 4 --clusters 9)
train_tiny=("${tiny[@]}" --eval-size 32 --init-batches 1 --kmeans-iters 3)
# The paper's sizes where there is room: 10 GB of images in host memory, on the GPU those and k-means' points, 8.4 GB of 20 batches of 256.
room=$(($(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo) >> 20)) # GiB
if [ "$SMALL" = 1 ]; then
    images=2 count=2 epochs=1 warm_up=1 batch=2 batch_cluster=4
    picie_size=("${tiny[@]}")
    peer_size=(--res 32 --base 64 --batch 2 --batch-cluster 4 --k 9)
else
    images=2048 count=512 epochs=3 warm_up=2 batch=32 batch_cluster=32
    [ "$MEMORY" -lt 70000 ] || [ "$room" -lt 24 ] || images=8192 batch=128 batch_cluster=256
    picie_size=(--batch "$batch" --batch-cluster "$batch_cluster")
    peer_size=("${picie_size[@]}")
fi

scenes() { # NAME TRAIN VAL
    [ -e "$WORK/$1" ] || picie scenes "$WORK/$1" --train "$2" --val "$3"
}

# Trains on scenes that picie draws, into the new folder RUN.
demo() { # RUN FLAG...
    local size=()
    if [ "$SMALL" = 1 ]; then
        scenes demo 6 3
        size=("${train_tiny[@]}")
    else
        scenes demo 256 64
    fi
    picie train --recipe demo --data demo --device cuda --autotune off "${size[@]}" --run "$@"
}

sheet() {
    picie --version
    picie devices
    uname -srm
    nvidia-smi || echo 'no nvidia-smi'
    report sheet
    note "$(picie devices | sed -n 's/^cuda:0 *//p')"
}

smoke() {
    demo run
    note "$(report demo run/metrics.jsonl)"
    picie bench --device cuda --images "$count" --epochs 1 --warm-up 1 --autotune off "${picie_size[@]}" --json >smoke.json
    note "$(report demo run/metrics.jsonl); $(report bench smoke smoke.json)"
}

tests() {
    # NOTE: what ptxas said of registers lies where the kernels were compiled.
    local some=(ops:: cuda::)
    [ "$SMALL" = 0 ] || some=(ops::adam ops::top ops::confusion cli::cuda::a_plan)
    PICIE_ROOT="$FILES" "$FILES/picie-tests" "${some[@]}" --skip registers --test-threads 4 2>&1 | tee "$OUT/tests.txt" || true
    note "$(grep '^test result:' "$OUT/tests.txt")"
    grep -q '^test result: ok. [1-9]' "$OUT/tests.txt"
}

bench() {
    export XDG_CACHE_HOME="$WORK/tuned"
    local run said=''
    for run in cold warm; do
        picie bench --device cuda --images "$images" --epochs "$epochs" --warm-up "$warm_up" "${picie_size[@]}" --json >"$run.json" 2> >(tee "$run.err" >&2)
        wait $!
        said="$said${said:+; }$(report bench "$run" "$run.json" "$run.err")"
        note "$said"
    done
}

peer() {
    "$PYTHON" -c 'import torch, torchvision' 2>/dev/null || skip "no PyTorch with torchvision in $PYTHON"
    local device=cuda how=(eager compiled)
    # It has no software GPU.
    [ -z "$SOFTWARE" ] || device=cpu how=(eager)
    local run said
    local -a flag layer=(--images "$batch_cluster")
    [ "$SMALL" = 0 ] || layer=(--images 2 --size 32 --runs 1)
    "$PYTHON" "$KIT/stem.py" "${layer[@]}" --device "$device" | tee stem.jsonl
    said="$(report stem stem.jsonl)"
    for run in "${how[@]}"; do
        flag=()
        [ "$run" = eager ] || flag=(--compile)
        "$PYTHON" "$KIT/picie_torch.py" --random "$images" "${peer_size[@]}" --epochs $((epochs + 1)) --device "$device" --bf16 --channels-last \
            --fpn cascade --weights size "${flag[@]}" | tee "$run.jsonl"
        said="$said; $(report peer "$run" "$run.jsonl")"
        note "$said"
    done
}

sanitize() {
    local sanitizer check code=0 said=''
    sanitizer="$(tool compute-sanitizer)"
    [ -n "$sanitizer" ] || skip 'compute-sanitizer is not installed'
    scenes few 4 2
    for check in memcheck racecheck initcheck; do
        : >"$check.txt"
        timeout 24 "$sanitizer" --tool "$check" --log-file "$check.txt" "$FILES/picie" train --recipe demo --data few --limit 2 \
            --device cuda --autotune off --no-graph "${train_tiny[@]}" --epochs 1 --run "$check" || {
            code=$?
            said="$said${said:+; }picie exits with $code"
        }
        { echo "== $check" && cat "$check.txt"; } >>"$OUT/sanitize.txt"
        said="$said${said:+; }$(report sanitize "$check" "$check.txt")" || code=1
        note "$said"
    done
    return "$code"
}

profile() {
    local ncu ours kernel said code
    ncu="$(tool ncu)"
    [ -n "$ncu" ] || skip 'ncu is not installed'
    ours="^($(report stems))_"
    # NOTE: the first launch of each kernel is asked for; should ncu count the launches of all kernels together, all are profiled.
    for kernel in "kernel-id=::regex:$ours:1" "kernel-name=regex:$ours"; do
        code=''
        "$ncu" --clock-control none --kernel-name-base function "--$kernel" --launch-count 500 --metrics "$(report metrics)" --csv --page raw --print-units base \
            --log-file "$OUT/kernels.csv" "$FILES/picie" bench --device cuda --images "$batch_cluster" --epochs 1 --warm-up 0 --no-graph \
            --autotune off "${picie_size[@]}" --json >profile.json || code=$?
        ! grep -q ERR_NVGPUCTRPERM "$OUT/kernels.csv" || skip 'reading counters is not permitted (ERR_NVGPUCTRPERM): run as root'
        if said="$(report kernels "$OUT/kernels.csv" profile.json)"; then
            note "$said${code:+; picie or ncu exits with $code}"
            return "${code:-0}"
        fi
    done
    note "$said, and its last line is: $(tail -n 1 "$OUT/kernels.csv")"
    return 1
}

determinism() {
    local run file
    for run in one two; do
        demo "$run" --deterministic
    done
    for file in one/*.safetensors; do
        cmp "$file" "two/${file#one/}" || {
            note "${file#one/} has other bytes in the second run"
            return 1
        }
    done
    note 'two runs with --deterministic: the same bytes'
}

fused() {
    [ -z "$SOFTWARE" ] || skip 'the software GPU has no engines of cuDNN'
    "$PYTHON" -c 'import torch' 2>/dev/null || skip "no PyTorch in $PYTHON"
    "$PYTHON" "$KIT/fused.py" --images "$batch_cluster" | tee fused.jsonl
    note "$(report fused fused.jsonl)"
}

"$1"
