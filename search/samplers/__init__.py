"""(history, seed, number) -> parameters. Read sampler.py first.

sampler.py holds draw() and the samplers; gp.py the Gaussian process behind the guided one; optuna_space.py the space in
Optuna's words.
"""
