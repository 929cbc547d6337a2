"""The slow, readable twins of the serving engines: SimPy processes that do the obvious thing."""
