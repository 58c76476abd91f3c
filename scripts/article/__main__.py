"""`python -m scripts.article`."""

import sys

from scripts.article.page import main

sys.exit(main())
