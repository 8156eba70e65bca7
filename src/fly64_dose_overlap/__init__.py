"""Reproducible dose and overlap studies in X-ray ptychography."""

__version__ = "0.1.0"
