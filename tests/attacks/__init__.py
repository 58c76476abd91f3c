"""Files made to harm whoever opens them, and the proof that nothing of the kind happens here.

`python -m attacks FOLDER`, run in tests/, writes every one of them, for trying other programs. They do no harm by
themselves: a payload that runs makes an empty file called `ran` and nothing else.
"""
