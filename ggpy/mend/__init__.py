"""Examining GGUF files, and mending them without quantizing again.

verify.py   a converted file must still be what its certificate says
doctor.py   ailments.py   what is wrong with a file, and what to do
edit.py     values.py     metadata and names changed, tensor data left as it is
card.py     the model card of a converted file, and pushing both to the Hub
"""
