"""(history, seed, number) -> parameters. Read sampler.py first.

sampler.py holds draw() and the samplers; gp.py the Gaussian process behind the guided one; earlier.py what earlier
studies know, earlier_studies.py gathers and knowledge.py uses it; optuna_space.py has the space in Optuna's words.
"""
