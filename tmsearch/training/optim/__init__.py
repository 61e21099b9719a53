"""What an optimizer step does to the weights: AdamW, its rounding, their average. Read optimizer.py first."""
