"""What joins the engine and the application. Read run_study.py first."""
