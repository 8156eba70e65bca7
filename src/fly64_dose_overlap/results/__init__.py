"""What methods made of the data: files, formats of others, how long it took, and where it is kept."""
