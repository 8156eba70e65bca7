"""The physical limit: least errors that the photons of a scan allow."""
