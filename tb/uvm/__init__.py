"""A UVM environment (pyuvm) for the whole accelerator: agents, predictor, scoreboard, coverage."""
