"""Files of the study: safe NPZ, the dataset contract and canonical base sets."""
