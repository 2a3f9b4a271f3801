"""`python -m mer_zoo` is `mer-zoo`."""

import sys

from mer_zoo.cli import main

if __name__ == "__main__":
    sys.exit(main())
