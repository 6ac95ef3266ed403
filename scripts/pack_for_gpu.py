"""Pack what a machine with a GPU and without a network needs beside this repository, into ``.gpu``.

    python scripts/pack_for_gpu.py --data caltech101.tar           # wheels and images
    python scripts/pack_for_gpu.py --data caltech101 --only images # one of the two

``.gpu/wheels`` holds the packages that PyTorch's own images do not have, for Python 3.12 on x86-64 Linux.
``.gpu/caltech101.zip`` holds the photographs of Caltech-101 as WebP, in one file small enough to carry.
``scripts/on_gpu.sh`` finds both there.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PACKED = ROOT / ".gpu"
# What erfattr and the benchmarks need and a machine made for PyTorch has not, with what these need in turn.
WHEELS = ("captum", "lmfit", "asteval", "uncertainties", "dill", "openerf", "torchattacks")
PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64")
LARGEST = 40 * 2**20
ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}
SIDE = 196


def photographs(data: Path) -> Iterator[tuple[str, bytes]]:
    """Yield class and name, without an ending, and the bytes of every image of a folder or a tar file."""
    if data.is_dir():
        for path in sorted(data.rglob("*")):
            if path.suffix.lower() in ENDINGS:
                yield f"{path.parent.name}/{path.stem}", path.read_bytes()
        return
    with tarfile.open(data) as archive:
        for member in archive:
            path = Path(member.name)
            if member.isfile() and path.suffix.lower() in ENDINGS:
                file = archive.extractfile(member)
                assert file is not None
                yield f"{path.parent.name}/{path.stem}", file.read()


def as_webp(item: tuple[str, bytes, int]) -> tuple[str, bytes]:
    """Return name and image as WebP, its shorter side at most ``SIDE`` pixels."""
    name, content, quality = item
    with Image.open(io.BytesIO(content)) as opened:
        image = opened.convert("RGB")
    scale = SIDE / min(image.size)
    if scale < 1:
        image = image.resize(
            (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC
        )
    written = io.BytesIO()
    image.save(written, "WEBP", quality=quality, method=6)
    return f"{name}.webp", written.getvalue()


def pack_images(data: Path, quality: int) -> None:
    """Write the archive beside its place, and rename it when it is whole and small enough."""
    beside = PACKED / "caltech101.zip.part"
    items = ((name, content, quality) for name, content in photographs(data))
    with ProcessPoolExecutor(2) as pool, zipfile.ZipFile(beside, "w") as archive:
        count = 0
        for name, content in pool.map(as_webp, items, chunksize=32):
            # With a fixed date: the same images give the same file.
            archive.writestr(zipfile.ZipInfo(f"caltech101/{name}"), content)
            count += 1
    size = beside.stat().st_size
    if count == 0:
        beside.unlink()
        sys.exit(f"--data: expected Caltech-101 as a folder or a tar file, found no image in {data}")
    if size > LARGEST:
        beside.unlink()
        sys.exit(f"--quality: {quality} gives {size / 2**20:.1f} MiB, expected {LARGEST / 2**20:.0f} at most")
    beside.rename(PACKED / "caltech101.zip")
    print(f"{count} images, {size / 2**20:.1f} MiB")


def pack_wheels() -> None:
    """Download the wheels with pip, for the other machine's Python."""
    shutil.rmtree(PACKED / "wheels", ignore_errors=True)  # two versions of one package stop an installation
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    target = ["--python-version", PYTHON, "--implementation", "cp", *platforms]
    subprocess.run([*pip, *target, "--dest", str(PACKED / "wheels"), *WHEELS], check=True)
    wheels = sorted((PACKED / "wheels").glob("*.whl"))
    print(f"{len(wheels)} wheels, {sum(wheel.stat().st_size for wheel in wheels) / 2**20:.1f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=None, help="Caltech-101: a folder, or a tar file of it")
    parser.add_argument("--quality", type=int, default=32, help="of the WebP files (default: %(default)s)")
    parser.add_argument("--only", choices=("wheels", "images"), default=None, help="pack only these")
    given = parser.parse_args()
    PACKED.mkdir(exist_ok=True)
    if given.only != "images":
        pack_wheels()
    if given.only != "wheels":
        if given.data is None or not given.data.exists():
            parser.error(f"--data: expected Caltech-101 as a folder or a tar file, got {given.data}")
        pack_images(given.data, given.quality)


if __name__ == "__main__":
    main()
