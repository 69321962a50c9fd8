# label: long
"""Fifty clients for two minutes: no error but an honest 429 or 503, and resident memory that stays."""

import os
import subprocess
import sys

environment = {**os.environ, "KEYHOLE_CLIENTS": "50", "KEYHOLE_SECONDS": "120"}
sys.exit(subprocess.run([sys.executable, "tests/api/test_clients.py"], env=environment).returncode)
