#!/bin/sh
# Install a wheel with its dependencies in a new environment and use it from outside the repository:
# import every public name, find every data file, run the command line on embedded data.
#
#   sh scripts/check_wheel.sh dist/erfattr-0.1.0-py3-none-any.whl
set -eu

[ $# -eq 1 ] && [ -f "$1" ] || { echo "usage: sh scripts/check_wheel.sh WHEEL (one that exists)" >&2; exit 2; }
scratch=$(mktemp -d "${TMPDIR:-/tmp}/erfattr-wheel.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

# The files that are not Python code, of the repository and of the wheel: none may be lost on the way.
find erfattr -type f ! -name '*.py' ! -path '*/__pycache__/*' | sort >"$scratch/expected"
sh scripts/venv.sh "$scratch/venv" "$1"

cd "$scratch"
venv/bin/python - expected <<'PYTHON'
import pathlib
import sys

import erfattr

root = pathlib.Path(erfattr.__file__).resolve().parent
assert "site-packages" in root.parts, f"imported from {root}, not from the installed wheel"
expected = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8").split()
assert "erfattr/py.typed" in expected, "the type marker is missing"
missing = [name for name in expected if not (root.parent / name).is_file()]
assert not missing, f"the wheel lacks {missing}"
for name in erfattr.__all__:
    getattr(erfattr, name)
print(f"erfattr {erfattr.__version__}: {len(erfattr.__all__)} public names, {len(expected)} data files")
PYTHON
venv/bin/erfattr --help
venv/bin/erfattr map --model demo --count 2 --output maps
ls maps/*.png maps/*.npy maps/*.json
