"""Print the oldest versions that pyproject.toml declares, as constraints for pip or uv.

    python scripts/oldest.py >oldest.txt
    pip install -c oldest.txt -e '.[test]'

``"torch>=2.4"`` becomes ``torch==2.4.*``: the last release of the oldest series, with its bugs mended. A
bound on a whole major version (``hypothesis>=6``) is left as it is. `make test-oldest` does all of it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib  # type: ignore[no-redef]

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
# What `pip install erfattr` and its extras bring a user, and what the tests are run with.
EXTRAS = ("report", "train", "test")
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?(?:>=(?P<version>[0-9.]+))?\s*(?:;.*)?")


def pins(project: Path) -> Iterator[str]:
    """Yield a constraint for each requirement of the package, ``[report]``, ``[train]`` and ``[test]``."""
    declared = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    extras = declared["optional-dependencies"]
    for requirement in [*declared["dependencies"], *(each for extra in EXTRAS for each in extras[extra])]:
        found = _REQUIREMENT.fullmatch(requirement)
        if found is None:
            raise ValueError(f"{project.name}: expected NAME>=VERSION, got {requirement!r}")
        name, version = found["name"], found["version"]
        if name == declared["name"]:
            continue
        if version is None:
            raise ValueError(f"{project.name}: expected a lowest version of {name}, got {requirement!r}")
        yield f"{name}=={version}.*" if "." in version else f"{name}>={version}"


if __name__ == "__main__":
    sys.stdout.writelines(f"{pin}\n" for pin in pins(PROJECT))
