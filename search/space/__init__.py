"""The space file -> a frozen Space, or one line that names file, key and fix. Read search_space.py first.

parsing.py checks the sections, budget.py the budget; yaml_loader.py reads the file; knobs.py says what a legal value is
and distributions.py what a range is; recommended.py handles `times: recommended`; errors.py says where a mistake is;
encoding.py maps drawn values to the unit cube.
"""
