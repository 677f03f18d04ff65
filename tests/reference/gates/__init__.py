"""Gates, one file each: the gate values of a row on its support, the prior of the logits, and their derivatives."""

from .base import Gate
from .frozen import Frozen
from .ibp import IBP
from .softmax import Softmax
from .threshold import Threshold

__all__ = ["IBP", "Frozen", "Gate", "Softmax", "Threshold"]
