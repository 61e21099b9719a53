"""The page to look at and listen to: one file, of a study or of a dataset, that needs no network."""
