"""train(config, speech, stretch, report) -> Result. Read train.py first."""
