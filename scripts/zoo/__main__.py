"""`python -m scripts.zoo`."""

import sys

from scripts.zoo.run import main

sys.exit(main())
