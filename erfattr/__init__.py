"""Which pixels does a vision network really use, which are half dead, and what follows from it.

The mathematics is that of Kim et al., *Dead Pixel Test Using Effective Receptive Field*; equation and
table numbers in docstrings are those of that paper.
"""

from erfattr.attack import GradientPixelAttack, OnePixelAttack, RandomPixelAttack, StrongPixelAttack
from erfattr.calibration import Calibration
from erfattr.calibration_file import load_calibration, save_calibration
from erfattr.datasets import ImageFiles, ImageLoader, sample_images
from erfattr.dead_pixels import DeadPixelMap
from erfattr.debias import DebiasedAttribution
from erfattr.downsampling import average_shortcuts, blur_downsampling
from erfattr.erf import ERF
from erfattr.execution import Execution
from erfattr.gaussian_fit import GaussianFit, fit_gaussian
from erfattr.imbalance import imbalance_index, phase_contrast, phase_profile, strong_pixels, weak_pixels
from erfattr.kernel_padding import pad_kernels
from erfattr.micro_objects import MicroObjectDataset
from erfattr.model_changes import LayerChange, ModelChanges
from erfattr.models import demo_model, load_model
from erfattr.noise import Comparison, Estimate, compare_imbalance, corrected_imbalance
from erfattr.pixel_trials import PixelAttackReport
from erfattr.receptive_field import ReceptiveField, nan_probe, receptive_fields, theoretical_receptive_field
from erfattr.sensitivity import SensitivityMaps
from erfattr.significance import PhaseEstimate, estimate_phase_profile
from erfattr.sizes import SizeScores, size_scores
from erfattr.sources import FeatureUnit, ModelOutput, from_channels_last, from_tokens
from erfattr.state_file import StateFile
from erfattr.statistics import MapSource, MapStatistics

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
