"""Which pixels does a vision network really use, which are half dead, and what follows from it.

The mathematics is that of Kim et al., *Dead Pixel Test Using Effective Receptive Field*; equation and
table numbers in docstrings are those of that paper.

The public names stand in ``__init__.pyi``; each is loaded when it is first used (SPEC 1), so importing the
package costs nothing.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
