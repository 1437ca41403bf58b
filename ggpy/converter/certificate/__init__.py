"""The certificate of a conversion: a short text read through the source and through the new file, side by side, before it gets its name.

probe.py     what is read: the text, and its beginning spread over the whole context
products.py  matrix products with weights read a piece at a time
oracle.py    decoders.py   the source, computed in Hugging Face's own conventions
walk.py      the file, computed by ggpy's graph on the runtime's reference ops
measure.py   judge.py   how far they differ, and whether the file's formats explain it
record.py    certify.py what the file's metadata keeps of it, and `certify`, which does it
"""
