"""`python -m mer_zoo` is `mer-zoo`."""

import sys

from mer_zoo.cli import main

sys.exit(main())
