"""ggpy: Hugging Face checkpoints to GGUF, and GGUF on the CPU."""

__version__ = "0.1.0"
