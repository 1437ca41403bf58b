"""From Hugging Face checkpoints, or other GGUF files, to GGUF files: read once, encoded on the way, verified, renamed when complete.

files.py        bounded, strict reading of untrusted files
safetensors.py  checkpoint.py   what lies in a checkpoint directory
identity.py     vocabulary*.py  what the new file says of itself and of its tokenizer
source.py       huggingface.py  requantize.py   a model as a stream of named float rows
prequantized/   keep.py         repacked.py     weights that are quantized already: read, kept, told of
recipes.py      tensor_types.py   imatrix.py   which tensor gets which block format, and which weights matter most
model_plan.py   forecast.py     explain.py   what will be written, settled and shown before any weight is read
stream.py       verify.py       the loop through which every weight goes once, and the look back
options.py      progress.py     what a conversion is told, and what it says while it is under way
report.py       pipeline.py     what was done, and `convert`, which does it
"""

from ggpy.converter.pipeline import convert
from ggpy.converter.progress import Progress
from ggpy.converter.report import Report

__all__ = ["Progress", "Report", "convert"]
