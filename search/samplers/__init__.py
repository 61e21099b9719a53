"""(history, seed, number) -> parameters. Read sampler.py first."""
