"""Several processes give what one gives, and none waits for one that failed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed as dist
from torch import nn

from erfattr import FeatureUnit, ModelOutput, SensitivityMaps, _processes, demo_model
from erfattr._processes import ProcessError, is_first_process
from erfattr.datasets.image_loader import ImageLoader
from erfattr.metrics.precision import relative_error
from erfattr.metrics.statistics import MapStatistics

IMAGES = torch.randn(11, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SOURCES = [FeatureUnit("layer2", (2, 5)), FeatureUnit("layer4"), ModelOutput("predicted")]

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")


def maps(model: nn.Module, loader: object, **options: object) -> list[MapStatistics]:
    return SensitivityMaps(model, SOURCES).attribute(loader, **options)  # type: ignore[arg-type]


def in_group(rank: int, world: int, folder: str, task: Callable[[int], object]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    try:
        result = task(rank)
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
    torch.save(result, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def run(task: Callable[[int], object], world: int, folder: Path) -> list[object]:
    # Processes that are spawned find this module as pytest did.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    mp.spawn(in_group, (world, str(folder), task), nprocs=world)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]


def loaders(kind: str) -> object:
    labels = torch.arange(11)
    return {
        "tensor": IMAGES,
        "loader": ImageLoader(IMAGES, 2),
        "list": list(IMAGES.split(4)),
        "one batch for all": [IMAGES],
        "pair": (IMAGES, labels),
    }[kind]


KINDS = ("tensor", "loader", "list", "one batch for all", "pair")


class Shares:
    """Maps of every kind of loader."""

    def __call__(self, rank: int) -> dict[str, list[MapStatistics]]:
        return {kind: maps(demo_model().double(), loaders(kind), max_examples=10) for kind in KINDS}


class OneFails:
    """One process meets a bad image, without and with a tolerance."""

    def __call__(self, rank: int) -> list[str]:
        images = IMAGES.clone()
        images[5] = torch.nan  # in the third batch of two: with three processes it is the last one's
        words = []
        for tolerance in (None, 1e-3):
            with pytest.raises((ValueError, ProcessError)) as error:
                maps(demo_model().double(), list(images.split(2)), tolerance=tolerance)
            words.append(f"{error.type.__name__}: {error.value}")
        return words


class Tolerance:
    """All stop after the same images, as soon as these are enough, or when there are no more."""

    def __call__(self, rank: int) -> list[tuple[int, float, float]]:
        found = []
        images = torch.randn(90, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        for tolerance in (0.5, 1e-6):
            (result,) = SensitivityMaps(demo_model().double(), [ModelOutput("predicted")]).attribute(
                list(images.split(3)), tolerance=tolerance, groups=4
            )
            found.append((result.n_images, relative_error(result, "pixels"), float(result.mean.sum())))
        return found


class Alone:
    """One process computes a map while the others do something else."""

    def __call__(self, rank: int) -> list[object]:
        found: list[object] = []
        _processes.JOIN_WITHIN = 1.0
        model = demo_model().double()
        if rank == 0:
            alone = maps(model, IMAGES, distributed=False)
            begun = time.monotonic()
            with pytest.raises(ProcessError) as error:
                maps(model, IMAGES)
            found += [str(error.value), time.monotonic() - begun, alone[0].n_images]
        dist.barrier()
        # What did not come about leaves the group as it was: training can go on, and so can a shared map.
        _processes.JOIN_WITHIN = 60.0
        return [*found, maps(model, IMAGES)[0].n_images]


class Both:
    """One after the other in one group, since starting processes is what takes long."""

    def __call__(self, rank: int) -> tuple[object, ...]:
        return Shares()(rank), OneFails()(rank), Tolerance()(rank), Alone()(rank)


@pytest.fixture(scope="module", params=[pytest.param(2, marks=pytest.mark.slow), 3])
def group(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """What each process of a group returned."""
    return run(Both(), request.param, tmp_path_factory.mktemp("group"))


def test_equal_to_one_process(group: list[Any]) -> None:
    expected = Shares()(0)
    for outcome in group:
        assert isinstance(outcome, tuple), outcome
        shares = outcome[0]
        for kind in KINDS:
            for result, one in zip(shares[kind], expected[kind], strict=True):
                assert result.n_images == one.n_images == 10
                assert result.source == one.source
                assert result.group_sizes == one.group_sizes
                for name in ("mean", "standard_error", "group_means"):
                    wanted = getattr(one, name)
                    # Batches are cut elsewhere and sums are added in another order: rounding.
                    torch.testing.assert_close(
                        getattr(result, name), wanted, rtol=1e-9, atol=1e-12 * float(wanted.max())
                    )


def test_failure_of_one_process_ends_all(group: list[Any]) -> None:
    message = "ValueError: inputs: expected finite images, got NaN or infinity in image 5"
    failed = 2 % len(group)
    told = f"ProcessError: process {failed} of {len(group)} failed: {message}"
    for rank, (_, both, *_) in enumerate(group):
        for words in both:
            assert words == message if rank == failed else words in (message, told)


def test_tolerance_stops_all_after_the_same_images(group: list[Any]) -> None:
    assert len({tuple(found[0] for found in outcome[2]) for outcome in group}) == 1
    (count, error, _), (all_of_them, _, mean) = group[0][2]
    assert 8 <= count < 90
    assert error < 0.5
    assert all_of_them == 90  # nothing is that precise
    images = torch.randn(90, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (one,) = SensitivityMaps(demo_model().double(), [ModelOutput("predicted")]).attribute(images, groups=4)
    assert mean == pytest.approx(float(one.mean.sum()), rel=1e-9)


def test_map_on_one_process_alone_ends_with_the_reason(group: list[Any]) -> None:
    message, seconds, count, shared = group[0][3]
    others = [str(rank) for rank in range(1, len(group))]
    assert message == (
        f"distributed: process 0 of {len(group)} computes a map, which all processes of the "
        "torch.distributed group share, but "
        f"process{'es' if len(others) > 1 else ''} {', '.join(others)} did not join within 1 s; "
        "call attribute in every process, or pass distributed=False to compute it in this one alone"
    )
    assert seconds < 30
    assert (count, shared) == (11, 11)
    assert [outcome[3] for outcome in group[1:]] == [[11]] * (len(group) - 1)


# Which process writes.


@pytest.mark.parametrize(
    ("given", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),  # the second machine's first process
        ({"LOCAL_RANK": "1"}, False),  # as Lightning starts it
        ({"SLURM_PROCID": "1"}, False),
        ({"LOCAL_RANK": "0", "SLURM_PROCID": "1"}, True),
    ],
)
def test_without_a_group_the_launcher_says_which_process_is_the_first(
    given: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() == first


def test_in_a_group_its_rank_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert is_first_process()
    finally:
        dist.destroy_process_group()
    assert not is_first_process()
