"""Greedy text of ggpy and of llama.cpp (the prebuilt `xllamacpp` wheel) from the same GGUF file, token by token.

    python tools/greedy_against_llamacpp.py MODEL.gguf [-n 64] [--chat] [--prompts FILE] [--json]

Both start from the same token ids: of a text to continue, or with --chat of a question in the model's own chat format. One near-tie decides
what follows, so the texts are there to be read. What is compared is ggpy's choice at every token of llama.cpp's text, and where that is
another, by how much llama.cpp preferred its own: its lead, in log-probability, near 0 where it was undecided itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
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
    """Both continuations of one prompt.

    equal: tokens until the texts part, of `tokens` that llama.cpp wrote. others: the tokens of llama.cpp's text at which ggpy, after the
    same tokens, would choose another; leads: llama.cpp's lead of its first choice over its second at each of them.
    """

    prompt: str
    ours: str
    theirs: str
    equal: int
    tokens: int
    others: list[int]
    leads: list[float]


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
    equal = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    choices = model.logits([*ids, *theirs[:-1]])[len(ids) - 1 :].argmax(-1)
    others = np.flatnonzero(choices != theirs).tolist()
    return Pair(prompt, model.detokenize(ours), model.detokenize(theirs), equal, len(theirs), others, [leads[i] for i in others])


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
        print(f"--- {found.prompt!r}: equal for {found.equal} of {found.tokens} tokens\n{found.ours}")
        if found.equal < found.tokens:
            print(f"... llama.cpp:\n{found.theirs}")
        for token, lead in zip(found.others, found.leads, strict=True):
            print(f"    another choice at token {token}, where llama.cpp leads by {lead:.3f}")
    tokens, others = sum(found.tokens for found in pairs), sum(len(found.others) for found in pairs)
    print(f"equal throughout: {sum(found.equal == found.tokens for found in pairs)} of {len(pairs)}")
    print(f"same choice: {tokens - others} of {tokens}, {1 - others / tokens:.1%}")


if __name__ == "__main__":
    main()
