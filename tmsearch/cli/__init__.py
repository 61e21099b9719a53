"""The command line: parse, call, print; nothing else. Read main.py first, then parser.py.

commands/ has one file a command, services/ joins the engine and the application, view/ prints a study on a terminal.
"""
