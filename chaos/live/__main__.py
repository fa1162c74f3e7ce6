"""`python -m chaos.live`."""

import sys

from chaos.live.command import main

sys.exit(main())
