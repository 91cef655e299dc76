"""Evidence is kept as natural logarithms, and shown to people as powers of ten."""

from __future__ import annotations

import math
from typing import Final

LN_10: Final = math.log(10)
