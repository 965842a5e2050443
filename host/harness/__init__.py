"""The simulated accelerator's surroundings: DMA engines, clock, the job that runs in the
simulator."""
