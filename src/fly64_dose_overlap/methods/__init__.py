"""The methods of the study, one file each, and what stops them."""
