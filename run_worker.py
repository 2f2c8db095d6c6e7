"""A worker: `python run_worker.py MODE N URL [flags]`. The same as `everfaas worker`."""

import sys

from everfaas_core.cli import main

if __name__ == "__main__":
    sys.exit(main(command="worker", program="run_worker.py"))
