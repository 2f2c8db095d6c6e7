"""`python -m everfaas_core.cli`: how `everfaas up` starts its roles."""

import sys

from everfaas_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
