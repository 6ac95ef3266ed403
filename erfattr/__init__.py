"""Which pixels does a vision network really use, which are half dead, and what follows from it.

The mathematics is that of Kim et al., *Dead Pixel Test Using Effective Receptive Field*; equation and
table numbers in docstrings are those of that paper.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
