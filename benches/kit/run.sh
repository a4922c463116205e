#!/usr/bin/env bash
# What must be seen on a GPU, in one command and within ten minutes; needs a driver, cuDNN 9, Python 3.8, and for the peer PyTorch.
#
# usage: run.sh all|sheet|smoke|tests|bench|peer|sanitize|profile|determinism|fused OUT [--small]
#   OUT      a folder for at most eight files: summary.txt, result.json (for benches/results/), log.txt and what the stages say
#   --small  sizes that the software GPU can do; it is chosen by itself there
#
# $PYTHON is the Python whose packages are used (python3); $PICIE_SOFTGPU a folder with a software GPU's libcuda.so (the kit's own).
# A stage that fails or runs out of time stops no other. The exit code is 1 if any did.
set -uo pipefail

stages=(sheet smoke tests bench peer sanitize profile determinism fused)
# Seconds each: 575 together.
declare -A limit=([sheet]=10 [smoke]=65 [tests]=100 [bench]=100 [peer]=115 [sanitize]=75 [profile]=50 [determinism]=25 [fused]=35)

usage() {
    sed -n '4,6p' "$0" >&2
    exit 2
}
[ $# -ge 2 ] || usage
asked="$1"
OUT="$2"
SMALL=0
case "${3:-}" in
    '') ;;
    --small) SMALL=1 ;;
    *) usage ;;
esac
case " all ${stages[*]} " in *" $asked "*) ;; *) usage ;; esac
case "$asked" in
    all) ;;
    sheet) stages=(sheet) ;;
    *) stages=(sheet "$asked") ;;
esac

KIT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
PYTHON="${PYTHON:-python3}"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 8))' || {
    echo "run.sh: $PYTHON is no Python 3.8: set \$PYTHON" >&2
    exit 2
}
mkdir -p "$OUT" || exit 2
OUT="$(cd "$OUT" && pwd)"
(cd "$OUT" && rm -f summary.txt result.json log.txt tests.txt sanitize.txt kernels.csv)
WORK="$(mktemp -d)"
child=
trap 'rm -rf "$WORK"' EXIT
trap '[ -z "$child" ] || kill "$child"; exit 130' INT TERM

# A folder beside this script that is unpacked already, or the archive.
FILES="$KIT/files"
if [ ! -d "$FILES" ]; then
    FILES="$WORK/files"
    mkdir "$FILES"
    tar -xJf "$KIT/files.tar.xz" -C "$FILES" 2>/dev/null || "$PYTHON" -m tarfile -e "$KIT/files.tar.xz" "$FILES" || exit 2
fi
export KIT PYTHON OUT WORK FILES SMALL
export XDG_CACHE_HOME="$WORK/cache"

report() { "$PYTHON" "$KIT/report.py" "$@"; }

# The machine's GPU, else the software one, with which any machine may take its time.
patience=1
before="${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
own="$(report libraries)"
own="${own:-${before#:}}${own:+$before}"
devices="$(LD_LIBRARY_PATH="$own" "$FILES/picie" devices 2>&1)"
if grep -q '^cuda:0' <<<"$devices" && ! grep -qE 'software GPU|not usable' <<<"$devices"; then
    export SOFTWARE=''
    export LD_LIBRARY_PATH="$own"
    # Of the first GPU: "… of 143771 MiB free".
    MEMORY="$(sed -n 's/^cuda:0.* of \([0-9]*\) MiB free.*/\1/p' <<<"$devices")"
else
    SOFTWARE="$(sed -n 's/^cuda    //p' <<<"$devices")"
    export SOFTWARE="${SOFTWARE:-$(tail -n 1 <<<"$devices")}"
    export PICIE_SOFTGPU="${PICIE_SOFTGPU:-$FILES/softgpu}" SOFTGPU_ORDERS=1
    export LD_LIBRARY_PATH="$PICIE_SOFTGPU$before"
    SMALL=1
    MEMORY=0
    patience=4
    [ -e "$PICIE_SOFTGPU/libcuda.so" ] || {
        echo "run.sh: no GPU ($SOFTWARE), and no software GPU in this kit" >&2
        exit 1
    }
fi
GPU="$("$FILES/picie" devices 2>&1 | sed -n 's/^cuda:0 *\([^,]*\),.*/\1/p')"
export GPU MEMORY
report new

failed=0
for stage in "${stages[@]}"; do
    begin="$(date +%s%N)"
    : >"$WORK/note"
    echo "== $stage" >>"$OUT/log.txt"
    timeout --kill-after=5 $((patience * limit[$stage])) bash "$KIT/stages.sh" "$stage" >>"$OUT/log.txt" 2>&1 &
    child=$!
    wait "$child"
    code=$?
    child=
    state=failed
    case $code in
        0) state=ok ;;
        77) state=skipped ;;
        124 | 137) state='out of time' ;;
    esac
    case $state in ok | skipped) ;; *) failed=1 ;; esac
    note="$(tail -n 1 "$WORK/note")"
    # What picie said last, of a stage that failed, or anyone, where the stage has no note.
    last="$(grep -v '^ *$' "$OUT/log.txt" | tail -n 1)"
    [[ -n "$note" && ("$state" != failed || "$last" != 'picie: '*) ]] || note="$last"
    report stage "$stage" "$state" "$(($(date +%s%N) - begin))" "$note"
done

# What a log has too much of is cut out of its middle.
for file in "$OUT"/*; do
    [ "$(stat -c %s "$file")" -le $((15 << 20)) ] && continue
    { head -c 7M "$file" && printf '\n[...]\n' && tail -c 7M "$file"; } >"$WORK/cut" && cp "$WORK/cut" "$file"
done
cat "$OUT/summary.txt"
exit $failed
