#!/usr/bin/env bash
# Measure on a machine with a GPU and no network, in parts of which each writes its results before the next begins.
#
#   python scripts/pack_for_gpu.py --data caltech101.tar   # before, on a machine with a network: fills .gpu
#   OUT=results bash scripts/on_gpu.sh                     # all parts, at most 12 minutes
#   OUT=results bash scripts/on_gpu.sh tests training=300  # some parts, with other limits in seconds
#   OUT=results bash scripts/on_gpu.sh --rehearse          # every part at toy size, on the processor
#
# A part whose results are in $OUT already is not repeated; one that was stopped goes on. $PYTHON names the
# interpreter (default: python3), $CARRIED the folder of wheels and images (default: .gpu), $WORK a folder for the
# state of runs (default: in memory). $PREVIOUS names an earlier training.json, whose finished runs are taken over.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
CARRIED=${CARRIED:-.gpu}
OUT=${OUT:-gpu-results}
PREVIOUS=${PREVIOUS:-docs/results/gpu/training.json}
if [ -z "${WORK:-}" ]; then
    if [ -d /dev/shm ] && [ -w /dev/shm ]; then WORK=/dev/shm/erfattr; else WORK=${TMPDIR:-/tmp}/erfattr; fi
fi

rehearse=""
parts=()
for word in "$@"; do
    case $word in
    --rehearse) rehearse=--rehearse ;;
    tests | tests=* | speed | speed=* | attack | attack=* | training | training=*) parts+=("$word") ;;
    *)
        echo "on_gpu.sh: expected --rehearse or parts tests, speed, attack, training[=SECONDS], got $word" >&2
        exit 2
        ;;
    esac
done
[ ${#parts[@]} -gt 0 ] || parts=(tests speed attack training)
limit_of() { case $1 in tests) echo 90 ;; speed) echo 180 ;; attack) echo 50 ;; training) echo 350 ;; esac; }

mkdir -p "$OUT" "$WORK"
OUT=$(cd "$OUT" && pwd)
export PYTHONUNBUFFERED=1 MPLBACKEND=Agg
if [ ! -d "$WORK/site" ] && ls "$CARRIED"/wheels/*.whl >/dev/null 2>&1; then
    "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$WORK/site.part" \
        "$CARRIED"/wheels/*.whl && mv "$WORK/site.part" "$WORK/site"
fi
export PYTHONPATH=$PWD:$WORK/site${PYTHONPATH:+:$PYTHONPATH}
if [ ! -d "$WORK/caltech101" ] && [ -f "$CARRIED/caltech101.zip" ]; then
    "$PYTHON" -m zipfile -e "$CARRIED/caltech101.zip" "$WORK/unpacked" &&
        mv "$WORK/unpacked/caltech101" "$WORK/caltech101"
fi
"$PYTHON" - <<'PY' || exit 1
import captum, lmfit, torch, torchvision
where = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {where}")
PY

tests() {
    local chosen="cuda and not slow" device=cuda status
    if [ -n "$rehearse" ]; then device=cpu; fi
    "$PYTHON" -m pytest -q -m "$chosen" --device "$device" -p no:cacheprovider --junitxml "$WORK/tests.xml" \
        --durations 10 tests/test_cuda.py
    status=$?
    [ -f "$WORK/tests.xml" ] && "$PYTHON" - "$WORK/tests.xml" "$OUT/tests.json" <<'PY'
import json, sys
from xml.etree import ElementTree
suite = ElementTree.parse(sys.argv[1]).getroot().find("testsuite")
numbers = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
failed = [
    {"name": case.get("name"), "message": (case.find("failure") if case.find("failure") is not None
                                            else case.find("error")).get("message", "")[:400]}
    for case in suite.iter("testcase")
    if case.find("failure") is not None or case.find("error") is not None
]
import torch
machine = torch.cuda.get_device_name() if torch.cuda.is_available() else "processor"
record = {**numbers, "seconds": float(suite.get("time")), "date": suite.get("timestamp"), "machine": machine,
          "torch": torch.__version__, "failed": failed}
open(sys.argv[2], "w").write(json.dumps(record, indent=1) + "\n")
PY
    return $status
}

speed() { "$PYTHON" benchmarks/gpu_speed.py --json "$OUT/speed.json" $rehearse; }

attack() {
    local data=$WORK/caltech101 sides=(erfattr)
    if "$PYTHON" -c 'import torchattacks'; then sides+=(torchattacks); fi
    if [ -n "$rehearse" ]; then
        "$PYTHON" benchmarks/attack.py --data "$data" --parts peers --models resnet18/none --peer-images 2 \
            --block 2 --size 32 --budget 100 --sides "${sides[@]}" --output "$WORK/attack"
    else
        "$PYTHON" benchmarks/attack.py --data "$data" --parts peers --models demo resnet50/none --peer-images 32 \
            --threads 16 --budget 400 --sides "${sides[@]}" --device cuda --output "$WORK/attack"
    fi && cp "$WORK/attack/peers.json" "$OUT/attack.json"
}

training() {
    local previous=$PREVIOUS
    if [ -f "$OUT/training.json" ]; then previous=$OUT/training.json; fi
    "$PYTHON" benchmarks/gpu_training.py --data "$WORK/caltech101" --json "$OUT/training.json" --workers 8 \
        --runs "$WORK/runs" --previous "$previous" --minutes "$1" $rehearse
}

failed=0
for part in "${parts[@]}"; do
    name=${part%%=*}
    limit=$(limit_of "$name")
    case $part in *=*) limit=${part#*=} ;; esac
    if [ -f "$OUT/$name.json" ] && { [ "$name" = tests ] || [ "$name" = attack ]; }; then
        echo "=== $name: results are there"
        continue
    fi
    begun=$SECONDS
    echo "=== $name, at most $limit s"
    # Each part in a process group of its own, so that its limit ends all that it started.
    export -f "$name"
    export rehearse WORK OUT PYTHON PREVIOUS
    timeout --kill-after=10 "$limit" bash -c "$name \"\$@\"" _ \
        "$("$PYTHON" -c "print(max(0.2, ($limit - 15) / 60))")"
    status=$?
    echo "=== $name: status $status after $((SECONDS - begun)) s"
    [ $status -eq 0 ] || failed=1
done
exit $failed
