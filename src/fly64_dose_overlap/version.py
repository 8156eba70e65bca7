"""The version of the package, which provenance records."""

__version__ = "0.1.0"
