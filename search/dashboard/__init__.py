"""The ledger published to Optuna: trials, notes, artifacts, importances. Read publisher.py first."""
