"""The search engine: knows Optuna, and nothing of what is trained."""
