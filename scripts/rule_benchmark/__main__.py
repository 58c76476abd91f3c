"""`python -m scripts.rule_benchmark`."""

import sys

from scripts.rule_benchmark.run import main

sys.exit(main())
