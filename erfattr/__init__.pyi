# The public names and where each lives. `__init__.py` reads this file and loads a name when it is first used.

from ._files import StateFile as StateFile
from .attr.calibration import Calibration as Calibration
from .attr.calibration_file import load_calibration as load_calibration
from .attr.calibration_file import save_calibration as save_calibration
from .attr.dead_pixel_map import DeadPixelMap as DeadPixelMap
from .attr.debiased_attribution import DebiasedAttribution as DebiasedAttribution
from .attr.debiased_attribution import debias as debias
from .attr.erf import ERF as ERF
from .attr.layouts import from_channels_last as from_channels_last
from .attr.layouts import from_tokens as from_tokens
from .attr.sensitivity_maps import SensitivityMaps as SensitivityMaps
from .attr.sources import FeatureUnit as FeatureUnit
from .attr.sources import ModelOutput as ModelOutput
from .datasets.image_files import ImageFiles as ImageFiles
from .datasets.image_loader import ImageLoader as ImageLoader
from .datasets.micro_objects import MicroObjectDataset as MicroObjectDataset
from .datasets.photographs import sample_images as sample_images
from .execution import Execution as Execution
from .metrics.corrected_imbalance import Comparison as Comparison
from .metrics.corrected_imbalance import Estimate as Estimate
from .metrics.corrected_imbalance import compare_imbalance as compare_imbalance
from .metrics.corrected_imbalance import corrected_imbalance as corrected_imbalance
from .metrics.gaussian_fit import GaussianFit as GaussianFit
from .metrics.gaussian_fit import fit_gaussian as fit_gaussian
from .metrics.imbalance import imbalance_index as imbalance_index
from .metrics.imbalance import phase_contrast as phase_contrast
from .metrics.imbalance import phase_profile as phase_profile
from .metrics.imbalance import strong_pixels as strong_pixels
from .metrics.imbalance import weak_pixels as weak_pixels
from .metrics.relief import relief as relief
from .metrics.significance import PhaseEstimate as PhaseEstimate
from .metrics.significance import dead_pixels as dead_pixels
from .metrics.significance import estimate_phase_profile as estimate_phase_profile
from .metrics.sizes import SizeScores as SizeScores
from .metrics.sizes import size_scores as size_scores
from .metrics.statistics import MapSource as MapSource
from .metrics.statistics import MapStatistics as MapStatistics
from .models.demo import demo_model as demo_model
from .models.loading import load_model as load_model
from .receptive_field.field import ReceptiveField as ReceptiveField
from .receptive_field.nan_probe import nan_probe as nan_probe
from .receptive_field.trace import receptive_fields as receptive_fields
from .receptive_field.trace import theoretical_receptive_field as theoretical_receptive_field
from .remedies.average_shortcuts import average_shortcuts as average_shortcuts
from .remedies.blur import blur_downsampling as blur_downsampling
from .remedies.kernel_padding import pad_kernels as pad_kernels
from .remedies.model_changes import LayerChange as LayerChange
from .remedies.model_changes import ModelChanges as ModelChanges
from .robust.pixel_attacks import GradientPixelAttack as GradientPixelAttack
from .robust.pixel_attacks import OnePixelAttack as OnePixelAttack
from .robust.pixel_attacks import RandomPixelAttack as RandomPixelAttack
from .robust.pixel_attacks import StrongPixelAttack as StrongPixelAttack
from .robust.pixel_trials import PixelAttackReport as PixelAttackReport

__version__: str
__all__: list[str]
