"""Greedy text of ggpy and of llama.cpp (the prebuilt `xllamacpp` wheel) from the same GGUF file, token by token.

    python tools/greedy_against_llamacpp.py MODEL.gguf [-n 64] [--chat] [--prompts FILE] [--json]

Both start from the same token ids: of a text to continue, or with --chat of a question in the model's own chat format. Where they part,
the gap is llama.cpp's own difference in log-probability between its first and second choice: near 0, it was undecided itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import xllamacpp

import ggpy

PROMPTS = (
    "The capital of France is",
    "Once upon a time",
    "Water boils at a temperature of",
    "In the beginning God created",
    "The three primary colours are",
    "To make a cup of tea, first",
    "The Second World War ended in",
    "def fibonacci(n):",
    "A good friend is someone who",
    "The largest planet of the solar system is",
)
QUESTIONS = (
    "What is the capital of France?",
    "Tell me a short story about a cat.",
    "At what temperature does water boil?",
    "List the three primary colours.",
    "How do I make a cup of tea?",
    "When did the Second World War end?",
    "Write a Python function that adds two numbers.",
    "What makes a good friend?",
    "Which planet is the largest in the solar system?",
    "Translate to French: Good morning.",
)


@dataclass(frozen=True)
class Pair:
    """Both continuations of one prompt. equal: tokens until they part; gap: llama.cpp's lead of its first choice over its second there."""

    prompt: str
    ours: str
    theirs: str
    equal: int
    tokens: int
    gap: float | None


class Peer:
    """A model loaded by llama.cpp."""

    def __init__(self, path: Path, context: int):
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.warmup, params.verbosity = context, 1, False, -1
        params.cpuparams.poll = 0  # its idle threads are not to spin beside ggpy's
        self.server = xllamacpp.Server(params)

    def greedy(self, ids: list[int], n: int) -> tuple[list[int], list[float]]:
        """Ids of the continuation, at most n, and at each the lead of the first choice over the second in log-probability."""
        asked = {"prompt": ids, "n_predict": n, "temperature": 0, "n_probs": 2, "cache_prompt": False}
        answer = self.server.handle_completions(asked)
        if "choices" not in answer:
            raise SystemExit(f"llama.cpp: {answer}")
        steps = answer["choices"][0]["logprobs"]["content"]
        return [step["id"] for step in steps], [step["top_logprobs"][0]["logprob"] - step["top_logprobs"][1]["logprob"] for step in steps]


def prompt_ids(model: ggpy.Model, prompt: str, chat: bool) -> list[int]:
    """The ids of a text to continue, or of a question in the model's chat format."""
    if not chat:
        return model.tokenize(prompt, bos=True)
    session = model.chat()
    session.messages.append({"role": "user", "content": prompt})
    return session.prompt()


def pair(model: ggpy.Model, peer: Peer, prompt: str, ids: list[int], n: int) -> Pair:
    """Let both continue `ids` by up to n tokens."""
    theirs, leads = peer.greedy(ids, n)
    ours = [step.token for step in model.stream(ids, max_tokens=n, temperature=0.0)]
    both = list(zip(ours, theirs, strict=False))
    equal = next((i for i, (a, b) in enumerate(both) if a != b), len(both))
    gap = leads[equal] if equal < len(both) else None
    return Pair(prompt, model.detokenize(ours), model.detokenize(theirs), equal, len(both), gap)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("-n", type=int, default=64, help="tokens to generate (default 64)")
    parser.add_argument("--chat", action="store_true", help="prompts are questions to answer, not texts to continue")
    parser.add_argument("--prompts", type=Path, help="a file with a prompt per line (default: ten of its own)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    prompts = args.prompts.read_text(encoding="utf-8").splitlines() if args.prompts else QUESTIONS if args.chat else PROMPTS
    model = ggpy.load(args.model, context=512)
    peer = Peer(args.model, 512)
    pairs = [pair(model, peer, prompt, prompt_ids(model, prompt, args.chat), args.n) for prompt in prompts]
    if args.json:
        json.dump([asdict(found) for found in pairs], sys.stdout, indent=1)
        return
    for found in pairs:
        parted = "equal" if found.gap is None else f"part after {found.equal} (llama.cpp's lead there {found.gap:.3f})"
        print(f"--- {found.prompt!r}: {found.tokens} tokens, {parted}\n{found.ours}")
        if found.gap is not None:
            print(f"... llama.cpp:\n{found.theirs}")
    print(f"{sum(found.gap is None for found in pairs)} of {len(pairs)} equal throughout")


if __name__ == "__main__":
    main()
