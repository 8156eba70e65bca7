"""The methods of the study, one file each, and what stops them; called, the package names them all."""

import sys
from importlib import import_module
from types import ModuleType


class _Methods(ModuleType):
    def __call__(self) -> list[str]:
        """Return the names of all methods, those of installed packages included.

        Examples
        --------
        >>> {"map", "ml", "lsqml", "refined"} <= set(sys.modules["fly64_dose_overlap.methods"]())
        True
        """
        # By name: what a module imports by a statement counts as the code of every method.
        return import_module(f"{__name__}.registry").method_names()


sys.modules[__name__].__class__ = _Methods
