"""The declared site: `load_site(directory)` reads, validates and returns it, or raises one InputError."""

from .load import is_site, load_site
from .model import Site

__all__ = ["Site", "is_site", "load_site"]
