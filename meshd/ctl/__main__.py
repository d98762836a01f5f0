"""`python -m meshd.ctl`: the same as `meshctl`."""

import sys

from meshd.ctl.app import main

if __name__ == "__main__":
    sys.exit(main())
