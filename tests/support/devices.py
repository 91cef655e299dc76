"""Where torch's tensors may be: a test that holds for all of them is run on each there is."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

on_every_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=_CUDA)])
