"""Mutation testing: change one thing in a copy of the package, and demand that a test fails.

A test that cannot fail proves nothing. There are two kinds of mutants:

    python -m scripts.mutants planted                  # those that somebody wrote down: tests/mutants/*.toml
    python -m scripts.mutants random --seed 7          # a sample of all small changes of the code
    python -m scripts.mutants random --nearest         # the same in a tenth of the time, and some are missed
    python -m scripts.mutants random --every-line      # one of every line: what no test looks at
    python -m scripts.mutants check                    # do the lists still fit the code? Runs no test
    python -m scripts.mutants relocate                 # after files were moved: correct the paths in the lists

The first sentence of every file here says what it does; `lists` and `packages` describe the files in tests/mutants.
"""
