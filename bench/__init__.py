"""Benchmarks. Figures are printed, never asserted: run them by hand on a machine that does nothing else."""
