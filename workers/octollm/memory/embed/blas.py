"""How many threads numpy's matrix products may use. By itself OpenBLAS takes every core, and starves the neighbours."""

import ctypes
from pathlib import Path

import numpy as np

_SETTERS = ("scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads", "openblas_set_num_threads")


def limit_threads(threads: int) -> bool:
    """For this process. False where numpy came with another library than OpenBLAS, which then keeps its own default."""
    package = Path(np.__file__).parent
    # Where its wheels put the library: beside the package on Linux and Windows, inside on macOS.
    for folder in (package.with_name("numpy.libs"), package / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")):
            library = ctypes.CDLL(str(path))  # already loaded by numpy: this is the same one
            for name in _SETTERS:
                if hasattr(library, name):
                    getattr(library, name)(ctypes.c_int(threads))
                    return True
    return False
