"""``erfattr report``: one page about a network, or about several side by side."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, replace
from datetime import datetime, timezone
from typing import Any

from erfattr._model import find_layer
from erfattr.cli._failures import naming
from erfattr.cli._inputs import ChosenImages, Network, chosen_images, chosen_network
from erfattr.cli._record import typed_command
from erfattr.cli._report_parts import network_page
from erfattr.models.loading import weights_hash
from erfattr.remedies.variants import make_variant
from erfattr.report.page.network import Missing, NetworkPage
from erfattr.report.page.verdict import verdict
from erfattr.report.page.writing import refuse_existing, refuse_without_jinja, write_report

# Of more images than this the names are left out: the hash of all tells whether they are the same.
_MOST_NAMES = 500


def run(options: argparse.Namespace) -> None:
    """Measure the networks one after the other, write the page, print the verdict."""
    started = datetime.now(timezone.utc)
    # All that can be refused is refused before the long part.
    refuse_without_jinja()
    with naming(path="--output"):
        refuse_existing(options.output, options.overwrite)
    networks = _networks(options)
    _refuse_unknown_layers(options, networks)
    images = {
        name: chosen_images(_of(options, network.info.name, None), network.preparation)
        for name, network in networks.items()
    }
    pages = []
    for name, network in networks.items():
        if not options.quiet:
            print(f"{name} ({network.info.weights}), {images[name].described['count']} images", flush=True)
        begun = time.perf_counter()
        page = network_page(options, name, network, images[name])
        seconds = time.perf_counter() - begun
        pages.append(replace(page, record=_record(network, images[name], seconds)))
        print("\n".join(_lines(pages[-1])), flush=True)
    record = {
        "command": typed_command(options, "models"),
        "date": started.isoformat(timespec="seconds"),
        "networks": {page.name: page.record for page in pages},
    }
    with naming(path="--output"):
        path = write_report(
            options.output, pages, record=record, same_images=True, overwrite=options.overwrite
        )
    print(f"\nwritten to {path} ({path.stat().st_size:,} bytes); open it in a browser")


def _networks(options: argparse.Namespace) -> dict[str, Network]:
    """Load all networks in all variants, by the names that they have on the page."""
    weights = options.weights or [None]
    several = weights if len(weights) == len(options.models) else weights * len(options.models)
    found: dict[str, Network] = {}
    for model, of_model in zip(options.models, several, strict=True):
        with naming(name="MODEL"):
            network = chosen_network(_of(options, model, of_model), "cpu")
        for variant in options.variants:
            with naming(variant="--variants"):
                changed = (
                    network.model
                    if variant == "original"
                    else make_variant(variant, network.model, options.seed)
                )
            name = model if variant == "original" else f"{model}, {variant}"
            if name in found and found[name].info.weights != network.info.weights:
                name = f"{name} ({network.info.weights})"
            if name in found:
                raise ValueError(f"MODEL: expected different networks, got {name} twice")
            info = network.info
            if variant != "original":
                info = replace(
                    info, weights=f"{info.weights}, {variant}", weights_sha256=weights_hash(changed)
                )
            found[name] = network._replace(model=changed.eval(), info=info)
    return found


def _refuse_unknown_layers(options: argparse.Namespace, networks: dict[str, Network]) -> None:
    """Raise where a layer is named that none of the networks has."""
    for layer in options.layers:
        if layer in ("stages", "last", "output"):
            continue
        errors = []
        for network in networks.values():
            try:
                find_layer(network.model, layer)
            except ValueError as error:
                errors.append(error)
        if len(errors) == len(networks):
            raise ValueError(f"--layers: {str(errors[0]).removeprefix('layer: ')}")


def _of(options: argparse.Namespace, model: str, weights: str | None) -> argparse.Namespace:
    """Return the options as the shared parts read those of a single model."""
    return argparse.Namespace(**{**vars(options), "model": model, "weights": weights})


def _record(network: Network, images: ChosenImages, seconds: float) -> dict[str, Any]:
    described = images.described_once_read()
    files = described.get("files")
    if files is not None and len(files) > _MOST_NAMES:
        described["files"] = f"{len(files)} names are left out; sha256_of_all_files tells them"
    return {"model": asdict(network.info), "images": described, "seconds": round(seconds, 1)}


def _lines(page: NetworkPage) -> list[str]:
    """Return the verdict, and what is missing."""
    lines = [f"  [{finding.light}] {finding.question} {finding.answer}" for finding in verdict(page)]
    parts = {
        **page.maps,
        "receptive fields": page.fields,
        "grid": page.diagnosis,
        "saliency": page.saliency,
        "tiles": page.tiling,
    }
    lines += [
        f"  not computed: {name}: {part.why}" for name, part in parts.items() if isinstance(part, Missing)
    ]
    return lines
