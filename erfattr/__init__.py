"""Which pixels does a vision network really use, which are half dead, and what follows from it.

The mathematics is that of Kim et al., *Dead Pixel Test Using Effective Receptive Field*; equation and
table numbers in docstrings are those of that paper.
"""

from erfattr.dead_pixels import DeadPixelMap
from erfattr.erf import ERF
from erfattr.execution import Execution
from erfattr.sensitivity import SensitivityMaps
from erfattr.sources import FeatureUnit, ModelOutput, from_channels_last, from_tokens
from erfattr.statistics import MapSource, MapStatistics

__version__ = "0.1.0"

__all__ = [
    "ERF",
    "DeadPixelMap",
    "Execution",
    "FeatureUnit",
    "MapSource",
    "MapStatistics",
    "ModelOutput",
    "SensitivityMaps",
    "__version__",
    "from_channels_last",
    "from_tokens",
]
