"""Schemes of quantisation, a file each: every file here is imported and registers itself."""

from importlib import import_module
from pkgutil import iter_modules

for _file in iter_modules(__path__, f"{__name__}."):
    import_module(_file.name)
