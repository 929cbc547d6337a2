"""What runs: networks as graphs of layers, the operator table, the layer trace and the importers."""
