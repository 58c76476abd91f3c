"""The ways in which tools that hook models have broken, one test file per family of mechanisms."""
