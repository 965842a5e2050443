"""What users run: the driver, the simulated accelerator, the commands."""
