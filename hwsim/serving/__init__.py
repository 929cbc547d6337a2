"""Many requests on one or several machines: queues, batches, fleets, objectives, and what meeting them costs."""

from hwsim.serving.answer import Serving
from hwsim.serving.api import serve
from hwsim.serving.token_answer import TokenServing

__all__ = ["Serving", "TokenServing", "serve"]
