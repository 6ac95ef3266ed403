"""Files for a journal: their size in millimetres, fonts that are inside, maps that are whole or not there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from erfattr.report.paper_files import save_for_print, write_stages

MAPS = {"net": {"layer1": torch.ones(64, 64), "layer.2": torch.rand(64, 64) + 0.1}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figure")
    record = {"seed": 3}
    write_stages(folder, MAPS, widths=(85, 170), formats=("pdf", "svg", "png"), record=record, zoom=16)
    return folder


def test_every_width_and_format_the_maps_and_a_record(folder: Path) -> None:
    names = {f"stages_{width}mm.{kind}" for width in (85, 170) for kind in ("pdf", "svg", "png")}
    names |= {"net_layer1.npy", "net_layer.2.npy", "result.json"}
    assert {path.name for path in folder.iterdir()} == names
    np.testing.assert_array_equal(np.load(folder / "net_layer.2.npy"), MAPS["net"]["layer.2"])
    result = json.loads((folder / "result.json").read_text())
    assert result["record"] == {"seed": 3}
    assert result["maps"]["net"]["layer.2"] == {"file": "net_layer.2.npy", "n_images": None, "source": None}


@pytest.mark.parametrize("width", [85, 170])
def test_pages_are_so_many_millimetres_wide(folder: Path, width: int) -> None:
    pdf = (folder / f"stages_{width}mm.pdf").read_bytes()
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", pdf)
    assert box is not None
    assert float(box[1]) / 72 * 25.4 == pytest.approx(width, abs=0.01)
    root = ElementTree.parse(folder / f"stages_{width}mm.svg").getroot()
    assert float(root.attrib["width"].removesuffix("pt")) / 72 * 25.4 == pytest.approx(width, abs=0.01)
    with Image.open(folder / f"stages_{width}mm.png") as picture:
        dpi = picture.info["dpi"][0]
        assert dpi >= 299.9
        assert picture.width / dpi * 25.4 == pytest.approx(width, abs=0.1)


def test_fonts_are_inside(folder: Path) -> None:
    pdf = (folder / "stages_85mm.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Subtype /Type3" not in pdf
    fonts = set(re.findall(rb"/BaseFont /([A-Za-z+-]+)", pdf))
    assert any(b"DejaVuSans" in font for font in fonts)
    # In an SVG letters are outlines: nothing depends on the fonts of the reader's machine.
    svg = (folder / "stages_85mm.svg").read_text()
    assert "<text" not in svg
    assert "font-family" not in svg


def test_every_pixel_of_the_map_is_equally_large_in_the_png(tmp_path: Path) -> None:
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2 + 1.0
    write_stages(tmp_path, {"net": {"a": board}}, widths=(60,), formats=("png",), zoom=None)
    with Image.open(tmp_path / "stages_60mm.png") as picture:
        line = np.asarray(picture.convert("L"), dtype=int)
    middle = line[line.shape[0] // 3]
    changes = np.flatnonzero(np.abs(np.diff(middle)) > 60)
    steps = np.diff(changes[4:-4])
    assert len(steps) > 40
    assert set(steps.tolist()) == {round(300 * 53.8 / 25.4 / 64 + 0.5)}


def test_same_figure_same_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_stages(tmp_path / name, MAPS, widths=(85,), formats=("pdf", "svg"), zoom=16)
    for kind in ("pdf", "svg"):
        first, second = (tmp_path / name / f"stages_85mm.{kind}" for name in ("one", "two"))
        assert first.read_bytes() == second.read_bytes()


def test_errors_leave_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ones: dict[str, dict[str, Tensor]] = {"net": {"a": torch.ones(8, 8)}}
    with pytest.raises(ValueError, match="formats: expected one of 'pdf', 'svg', 'png'"):
        write_stages(out, ones, formats=("eps",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="widths: expected different ones and at least one format"):
        write_stages(out, ones, widths=(85, 85))
    with pytest.raises(ValueError, match="maps: expected names that make different file names"):
        write_stages(out, {"net": {"a/b": torch.ones(8, 8), "a b": torch.ones(8, 8)}})
    with pytest.raises(ValueError, match="width: expected at least"):
        write_stages(out, ones, widths=(2,))
    with pytest.raises(TypeError, match="record: expected what JSON can hold"):
        write_stages(out, ones, widths=(85,), record={"what": object()})
    assert not out.exists()
    with pytest.raises(ValueError, match="path: expected one of 'pdf', 'svg', 'png'"):
        save_for_print(Figure(), tmp_path / "a.gif")
    with pytest.raises(ValueError, match="figure: expected one whose first axes hold a map"):
        save_for_print(Figure(), tmp_path / "a.png")
