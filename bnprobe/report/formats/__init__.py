"""What is written: a page as HTML and text, a document as JSON and tables, checked files as text, JSON and SARIF.

Each file makes text, or bytes, of what it is given, and writes nothing. `Document` has a method for each form of one report
or comparison, and `FORMATS` in `cli/check.py` a line for each form of several checked files.
"""
