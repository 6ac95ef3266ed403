"""What stands on a page: for its template the words and tables, for its script the maps."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib import colormaps
from torch import Tensor

from erfattr._files import plain
from erfattr.metrics.corrected_imbalance import compare_imbalance
from erfattr.receptive_field.field import ReceptiveField
from erfattr.report.map_report import MapReport
from erfattr.report.map_sentences import map_lines, needed_in_words
from erfattr.report.page.curves import depth_chart
from erfattr.report.page.network import Missing, NetworkPage, SaliencyBeforeAfter, SaliencyExample, present
from erfattr.report.page.packing import ERROR_STEP, pack
from erfattr.report.page.shapes import SHARES, color_ends, mass_lines
from erfattr.report.page.verdict import verdict

# Maps whose colours are read by everyone, and one for values about a middle.
_COLORS = {"magma": "magma", "diverging": "PuOr_r"}
# Of saliency maps a coarser step is enough: they are looked at, not measured.
_LOOKED_AT = 0.02
_QUALITY = 85


class Content:
    """Collects what the script needs while the template's part is made."""

    def __init__(self) -> None:
        self.maps: list[dict[str, Any]] = []
        self.profiles: list[dict[str, Any]] = []
        self.saliency: list[dict[str, Any]] = []
        self.numbers: list[dict[str, Any]] = []

    def data(self) -> dict[str, Any]:
        """Return what the script reads."""
        colors = {
            name: base64.b64encode(
                (colormaps[known](range(256))[:, :3] * 255).round().astype("uint8")
            ).decode()
            for name, known in _COLORS.items()
        }
        return {
            "colors": colors,
            "maps": self.maps,
            "profiles": self.profiles,
            "saliency": self.saliency,
            "numbers": self.numbers,
        }

    def map(self, title: str, values: Tensor, **more: Any) -> int:
        """Add a map; return its number."""
        linear, logarithmic = color_ends([values / values.mean()])
        self.maps.append(
            {
                "title": title,
                "values": pack(values).plain(),
                "error": None,
                "mean": float(values.mean()),
                "linear": linear,
                "log": logarithmic,
                "period": None,
                "box": None,
                "unit": None,
                "lines": [],
                **more,
            }
        )
        return len(self.maps) - 1


def page_content(
    networks: Sequence[NetworkPage], *, same_images: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the template reads, and what the script reads."""
    content = Content()
    described = [_network(content, network) for network in networks]
    rows = merged_rows([list(network.maps) for network in networks])
    page = {
        "networks": described,
        "rows": [(row, [of["maps"].get(row) for of in described]) for row in rows],
        "differences": _differences(networks, rows, same_images),
    }
    return page, content.data()


def merged_rows(of_networks: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows of all networks in one order that keeps each network's own.

    Example:
        >>> merged_rows([["stride 4", "stride 16", "output"], ["stride 4", "stride 8", "output"]])
        ['stride 4', 'stride 8', 'stride 16', 'output']
    """
    merged: list[str] = []
    for rows in of_networks:
        place = 0
        for row in rows:
            if row not in merged:
                merged.insert(place, row)
            place = merged.index(row) + 1
    return merged


def _network(content: Content, network: NetworkPage) -> dict[str, Any]:
    maps = {
        row: {"missing": report.why} if isinstance(report, Missing) else _map(content, network, report)
        for row, report in network.maps.items()
    }
    content.numbers.append(
        {
            "name": network.name,
            "weights": network.weights,
            "maps": {row: report.numbers() for row, report in network.measured.items()},
            "record": plain(network.record),
        }
    )
    fields = present(network.fields)
    return {
        "name": network.name,
        "weights": network.weights,
        "findings": verdict(network),
        "maps": maps,
        "profiles": [found for found in maps.values() if found.get("profile") is not None],
        "imbalance": [_imbalance_row(network, report) for report in network.measured.values()],
        "fields": _part(network.fields, lambda found: [_field_row(n, f) for n, f in found.items() if n]),
        "chart": None if fields is None else depth_chart(fields, network.measured.values()),
        "tiling": _part(network.tiling, list),
        "diagnosis": _part(network.diagnosis, lambda found: _diagnosis(content, network, found)),
        "saliency": _part(network.saliency, lambda found: _saliency(content, found)),
        "record": network.record,
    }


def _part(part: Any, described: Any) -> dict[str, Any] | None:
    """Return what the template shows of a part: nothing, why it is missing, or what it holds."""
    if part is None:
        return None
    return {"missing": part.why} if isinstance(part, Missing) else {"found": described(part)}


def _map(content: Content, network: NetworkPage, report: MapReport) -> dict[str, Any]:
    statistics, source = report.statistics, report.source
    field = report.receptive_field
    box = None if field is None or source.unit is None else field.bounds(source.unit)
    period = report.period or (None if field is None else field.period)
    # Smooth enough to leave out the grid, and much less than the field itself: its line must not grow by it.
    smooth = max(min(max(period or (1, 1)) / 2, _half(report) / 8), 0.5)
    known = bool(statistics.standard_error.isfinite().all())
    number = content.map(
        f"{network.name}, {report.title}",
        statistics.mean,
        error=pack(statistics.standard_error, ERROR_STEP).plain() if known else None,
        period=period,
        box=box,
        unit=source.center,
        lines=[{"share": share, "lines": mass_lines(statistics.mean, share, smooth)} for share in SHARES],
    )
    title, *lines = map_lines(report, network.seconds_per_image)
    found: dict[str, Any] = {"number": number, "title": title, "lines": lines, "profile": None}
    if report.profile is not None and report.period is not None:
        error, contrast = None, ""
        if report.phase is not None:
            error = report.phase.standard_error
            value, spread = report.phase.corrected_contrast, report.phase.contrast_standard_error
            contrast = f"contrast {value:.4f} +- {spread:.4f} without the noise"
        content.profiles.append(
            {
                "title": f"{network.name}, {title}",
                "shape": tuple(report.profile.shape),
                "values": [round(value, 4) for value in report.profile.flatten().tolist()],
                "errors": None if error is None else [round(value, 4) for value in error.flatten().tolist()],
                "reach": min(max(float((report.profile - 1).abs().max()), 1e-6), 1.0),
            }
        )
        found["profile"] = {"number": len(content.profiles) - 1, "title": title, "contrast": contrast}
    return found


def _imbalance_row(network: NetworkPage, report: MapReport) -> dict[str, Any]:
    estimate = report.corrected.get("L1")
    return {
        "title": report.title,
        "estimate": estimate,
        "uncorrected": report.imbalance["L1_relative_to_mean"],
        "n_images": report.statistics.n_images,
        "needed": needed_in_words(report, network.seconds_per_image),
        "dead": report.dead,
    }


def _field_row(name: str, field: ReceptiveField) -> dict[str, Any]:
    y, x = field.center()
    return {
        "layer": name,
        "map": f"{field.output_size[0]} x {field.output_size[1]}",
        "units": field.output_size[0] * field.output_size[1],
        "size": f"{field.size[0]} x {field.size[1]}",
        "area": field.size[0] * field.size[1],
        "stride": f"{field.stride[0]:g}"
        if field.stride[0] == field.stride[1]
        else f"{field.stride[0]:g} x {field.stride[1]:g}",
        "step": field.stride[0],
        "center": f"({y:g}, {x:g})",
        "row": y,
        "status": field.status,
        "note": field.note,
    }


def _diagnosis(content: Content, network: NetworkPage, diagnosis: Any) -> dict[str, Any]:
    sources = diagnosis.sources
    where = "the output" if sources.unit is None else f"{sources.layer}, unit {sources.unit}"
    number = content.map(f"{network.name}, forecast of {where}", diagnosis.forecast, period=sources.period)
    return {
        "sentences": diagnosis.sentences(),
        "sources": sources.rows(),
        "shares": [source.share for source in sources.sources],
        "remedies": diagnosis.remedy_rows(),
        "number": number,
        "title": f"forecast of {where}",
    }


def _saliency(content: Content, saliency: SaliencyBeforeAfter) -> dict[str, Any]:
    examples = []
    for example in saliency.examples:
        scale = float(example.raw.mean()) or 1.0
        raw, debiased = (values.double() / scale for values in (example.raw, example.debiased))
        content.saliency.append(
            {
                "title": example.title,
                "raw": pack(raw, _LOOKED_AT).plain(),
                "debiased": pack(debiased, _LOOKED_AT).plain(),
                "end": color_ends([raw])[0][1],
            }
        )
        change = 100 * float((debiased - raw).abs().mean())
        examples.append(
            {
                "number": len(content.saliency) - 1,
                "title": example.title,
                "image": _jpeg(example),
                "height": example.image.shape[1],
                "width": example.image.shape[2],
                "change": f"{change:.1f}",
            }
        )
    return {
        "examples": examples,
        "method": saliency.method,
        "n_images": saliency.n_images,
        "before": saliency.before,
        "after": saliency.after,
    }


def _jpeg(example: SaliencyExample) -> str:
    """Return the image as the address of an image that stands in the page itself."""
    from PIL import Image

    pixels = (example.image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _differences(
    networks: Sequence[NetworkPage], rows: Sequence[str], same_images: bool
) -> list[dict[str, Any]]:
    """Return what the other networks differ from the first in, map by map."""
    found = []
    for other in networks[1:]:
        for row in rows:
            mine, its = networks[0].measured.get(row), other.measured.get(row)
            if mine is None or its is None:
                continue
            found.append({"row": row, "name": other.name, **_difference(its, mine, same_images)})
    return found


def _difference(report: MapReport, against: MapReport, same_images: bool) -> dict[str, str]:
    imbalance = "too few images"
    if report.corrected and against.corrected:
        sizes = report.statistics.group_sizes, against.statistics.group_sizes
        paired = same_images and sizes[0] == sizes[1]
        imbalance = compare_imbalance(report.statistics, against.statistics, 1, paired=paired).sentence
    contrast = "not known for both"
    if report.phase is not None and against.phase is not None:
        difference = report.phase.corrected_contrast - against.phase.corrected_contrast
        error = math.hypot(report.phase.contrast_standard_error, against.phase.contrast_standard_error)
        contrast = f"{difference:+.4f} +- {error:.4f}"
    sides = [_half(of) for of in (report, against)]
    size = f"{sides[0] - sides[1]:+g} px ({sides[0]:g} against {sides[1]:g})"
    return {"imbalance": imbalance, "contrast": contrast, "size": size}


def _half(report: MapReport) -> float:
    return dict(zip(report.sizes.fractions, report.sizes.mass_squares, strict=True))[0.5]
