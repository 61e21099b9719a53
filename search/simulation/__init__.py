"""The same engine on recorded curves, in virtual time. Read simulator.py first."""
