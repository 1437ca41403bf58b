"""Quantizing with a look at what weights are multiplied by: what is counted of a model's inputs, and methods that use it."""
