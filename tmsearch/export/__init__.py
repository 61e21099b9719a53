"""The final run, the model folder and its card. Read final_run.py first.

final_run.py trains, soups.py averages, finalize.py tests and writes, model_folder.py and model_card.py are what it
writes; weights.py keeps the models of a confirmation.
"""
