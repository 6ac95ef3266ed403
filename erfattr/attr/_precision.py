"""When a run that was given a tolerance has seen enough images, in one process or in several."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from erfattr._checks import ToleranceOf
from erfattr._processes import all_told, first_says
from erfattr.attr._run import Placement
from erfattr.metrics.precision import relative_error
from erfattr.metrics.statistics import StreamingStatistics

# The precision is looked at each time this share of images has come on top, so that looking costs little.
_LOOK_AGAIN = 1.1


class Precision:
    """Says after each batch whether the maps are precise enough.

    Several processes look together, after the same number of batches each; one that has no more batches
    goes on looking until all have none, or all have enough.

    Args:
        tolerance: The relative standard error that is wanted; ``None``: there is nothing to look at.
        of: Of what.
        streams: What is accumulated, one for each source.
        world: Number of processes that share the images.
    """

    def __init__(
        self, tolerance: float | None, of: ToleranceOf, streams: Sequence[StreamingStatistics], world: int
    ) -> None:
        self._tolerance = tolerance
        self._of = of
        self._streams = streams
        self._world = world
        self._least = 2 * streams[0].groups
        self._look_at = self._least if world == 1 else 1
        self._batches = 0
        self._ended = False

    def is_enough(self, placement: Placement) -> bool:
        """Say after a batch whether it was the last that is needed."""
        if self._tolerance is None:
            return False
        self._batches += 1
        seen = self._streams[0].n_images if self._world == 1 else self._batches
        if seen < self._look_at:
            return False
        self._look_at = int(seen * _LOOK_AGAIN) + 1
        if self._world == 1:
            return self._error(placement, self._streams) < self._tolerance
        return self._look_together(placement, None, done=False)

    def wait(self, placement: Placement | None, failure: Exception | None) -> None:
        """Look on with the other processes until none of them has another batch, or all have enough.

        Raises:
            Exception: ``failure`` itself, where this process failed.
            ProcessError: another process failed.
        """
        while self._tolerance is not None and self._world > 1 and not self._ended:
            self._look_together(placement, failure, done=True)

    def _look_together(self, placement: Placement | None, failure: Exception | None, *, done: bool) -> bool:
        try:
            told = all_told((placement, done), failure)
        except Exception:
            self._ended = True  # all processes hear of it here, and none looks again
            raise
        placement = next((theirs for theirs, _ in told if theirs is not None), None)
        enough = False
        if placement is not None:
            streams = copy.deepcopy(self._streams)
            for stream in streams:
                stream.reduce(placement.map_size)
            if streams[0].n_images >= self._least and self._tolerance is not None:
                # The last bits may differ between processes: the first one's answer counts.
                enough = first_says(self._error(placement, streams) < self._tolerance)
        self._ended = enough or all(ended for _, ended in told)
        return enough

    def _error(self, placement: Placement, streams: Sequence[StreamingStatistics]) -> float:
        return max(relative_error(result, self._of) for result in placement.results(streams))
