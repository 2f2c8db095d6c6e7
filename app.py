"""The API server: `python app.py [flags]`. The same as `everfaas api`."""

import sys

from everfaas_core.cli import main

if __name__ == "__main__":
    sys.exit(main(command="api", program="app.py"))
