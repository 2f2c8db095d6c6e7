"""A dispatcher: `python run_dispatcher.py -m MODE [flags]`. The same as `everfaas dispatcher`."""

import sys

from everfaas_core.cli import main

if __name__ == "__main__":
    sys.exit(main(command="dispatcher", program="run_dispatcher.py"))
