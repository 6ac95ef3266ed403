"""Which pixels does a vision network really use, which are half dead, and what follows from it.

The mathematics is that of Kim et al., *Dead Pixel Test Using Effective Receptive Field*; equation and
table numbers in docstrings are those of that paper.
"""

from erfattr._files import StateFile
from erfattr.attr.calibration import Calibration
from erfattr.attr.calibration_file import load_calibration, save_calibration
from erfattr.attr.dead_pixel_map import DeadPixelMap
from erfattr.attr.debiased_attribution import DebiasedAttribution
from erfattr.attr.erf import ERF
from erfattr.attr.sensitivity_maps import SensitivityMaps
from erfattr.attr.sources import FeatureUnit, ModelOutput, from_channels_last, from_tokens
from erfattr.datasets.images import ImageFiles, ImageLoader, sample_images
from erfattr.datasets.micro_objects import MicroObjectDataset
from erfattr.execution import Execution
from erfattr.metrics.corrected_imbalance import Comparison, Estimate, compare_imbalance, corrected_imbalance
from erfattr.metrics.gaussian_fit import GaussianFit, fit_gaussian
from erfattr.metrics.imbalance import (
    imbalance_index,
    phase_contrast,
    phase_profile,
    strong_pixels,
    weak_pixels,
)
from erfattr.metrics.significance import PhaseEstimate, estimate_phase_profile
from erfattr.metrics.sizes import SizeScores, size_scores
from erfattr.metrics.statistics import MapSource, MapStatistics
from erfattr.models.loading import demo_model, load_model
from erfattr.receptive_field.field import (
    ReceptiveField,
    nan_probe,
    receptive_fields,
    theoretical_receptive_field,
)
from erfattr.remedies.downsampling import average_shortcuts, blur_downsampling
from erfattr.remedies.kernel_padding import pad_kernels
from erfattr.remedies.model_changes import LayerChange, ModelChanges
from erfattr.robust.pixel_attacks import (
    GradientPixelAttack,
    OnePixelAttack,
    RandomPixelAttack,
    StrongPixelAttack,
)
from erfattr.robust.pixel_trials import PixelAttackReport

__version__ = "0.1.0"

__all__ = [
    "ERF",
    "Calibration",
    "Comparison",
    "DeadPixelMap",
    "DebiasedAttribution",
    "Estimate",
    "Execution",
    "FeatureUnit",
    "GaussianFit",
    "GradientPixelAttack",
    "ImageFiles",
    "ImageLoader",
    "LayerChange",
    "MapSource",
    "MapStatistics",
    "MicroObjectDataset",
    "ModelChanges",
    "ModelOutput",
    "OnePixelAttack",
    "PhaseEstimate",
    "PixelAttackReport",
    "RandomPixelAttack",
    "ReceptiveField",
    "SensitivityMaps",
    "SizeScores",
    "StateFile",
    "StrongPixelAttack",
    "__version__",
    "average_shortcuts",
    "blur_downsampling",
    "compare_imbalance",
    "corrected_imbalance",
    "demo_model",
    "estimate_phase_profile",
    "fit_gaussian",
    "from_channels_last",
    "from_tokens",
    "imbalance_index",
    "load_calibration",
    "load_model",
    "nan_probe",
    "pad_kernels",
    "phase_contrast",
    "phase_profile",
    "receptive_fields",
    "sample_images",
    "save_calibration",
    "size_scores",
    "strong_pixels",
    "theoretical_receptive_field",
    "weak_pixels",
]
