"""One thin module per DVC stage: parse, load the parameters, call, write."""
