"""The harness of the simulated accelerator: DMA engines, clock, the job in the simulator."""
