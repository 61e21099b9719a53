"""The final run, the model folder and its card. Read final_run.py first."""
