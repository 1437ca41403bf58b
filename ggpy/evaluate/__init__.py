"""How good a model is: on a text, beside a base model, and at tasks."""

from ggpy.evaluate.llama_file import StoredBase, is_stored_base
from ggpy.evaluate.perplexity import evaluate
from ggpy.evaluate.probabilities import kl_divergence, log_softmax
from ggpy.evaluate.report import Comparison, Difference, Evaluation
from ggpy.evaluate.store import Store
from ggpy.evaluate.windows import CONVENTIONS, HUGGING_FACE, LLAMA

__all__ = [
    "CONVENTIONS", "HUGGING_FACE", "LLAMA", "Comparison", "Difference", "Evaluation", "Store", "StoredBase", "evaluate", "is_stored_base",
    "kl_divergence", "log_softmax",
]  # fmt: skip
