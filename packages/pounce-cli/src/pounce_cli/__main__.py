"""`python -m pounce_cli` is `pounce`."""

import sys

from pounce_cli.main import main

sys.exit(main())
