"""Who does what: partition, precision, fusion into kernels, residency across layers, kernel choice."""
