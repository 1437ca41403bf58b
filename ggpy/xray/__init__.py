"""What quantization did to a model: errors by tensor, block and channel, what the blocks show by themselves, and two files side by side."""

from __future__ import annotations

from ggpy.xray.examine import OUTLIER_FACTOR, xray
from ggpy.xray.record import TensorXray, Xray

__all__ = ["OUTLIER_FACTOR", "TensorXray", "Xray", "xray"]
