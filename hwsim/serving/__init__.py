"""Many requests on one or several machines: queues, batches, fleets, objectives, and what meeting them costs."""

from hwsim.serving.answer import Serving
from hwsim.serving.api import serve

__all__ = ["Serving", "serve"]
