"""Kernels that choose quants by what errors do to a layer's outputs, a lane for each row of weights."""
