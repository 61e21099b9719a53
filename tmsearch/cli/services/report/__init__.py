"""A study's report, from the ledger to the page. Read study_report.py first, then figures.py and clips.py."""
