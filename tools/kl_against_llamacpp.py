"""How far ggpy's predictions are from llama.cpp's on the same GGUF file: mean KL divergence per token and top-1 agreement.

    python tools/kl_against_llamacpp.py MODEL.gguf --llama-perplexity PATH --text FILE [--ctx 512] [--chunks 8]
    python tools/kl_against_llamacpp.py MODEL.gguf --reference LOGITS.npz

The first has llama-perplexity store its log-probabilities (`--kl-divergence-base`) and evaluates ggpy on the very tokens stored with
them, so the tokenizers play no part. The second takes logits stored earlier: `tokens` int32 (n,) and `logits_*` float32 (n, n_vocab), and
also says how far those lie from each other when there are several.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

import ggpy
from ggpy.evaluate import StoredBase, kl_divergence, log_softmax
from ggpy.evaluate.probabilities import score
from ggpy.evaluate.windows import chunk_window


@dataclass(frozen=True)
class Differences:
    """Two engines' predictions compared at n positions."""

    divergence: np.ndarray  # (n,) KL(llama.cpp || ggpy) in nats
    agreement: np.ndarray  # (n,) bool: same most likely token

    def __str__(self) -> str:
        error = self.divergence.std() / max(1, self.divergence.size - 1) ** 0.5
        mean, worst = self.divergence.mean(), self.divergence.max()
        return (
            f"mean KL {mean:.6f} ± {error:.6f}, largest {worst:.4f}; top-1 agreement {self.agreement.mean():.2%} of {self.divergence.size}"
        )


def compare(base: np.ndarray, other: np.ndarray) -> Differences:
    """Compare log-probabilities (n, n_vocab) with those of a base."""
    return Differences(kl_divergence(base, other), base.argmax(-1) == other.argmax(-1))


def against_llama_perplexity(model: ggpy.Model, args: argparse.Namespace) -> Differences:
    """Run llama-perplexity over the text and compare chunk by chunk."""
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "log-probabilities"
        command = [str(args.llama_perplexity), "-m", str(args.model), "-f", str(args.text), "-c", str(args.ctx), "-b", str(args.ctx)]
        command += ["--chunks", str(args.chunks), "--kl-divergence-base", str(stored), *shlex.split(args.llama_args)]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
        if done.returncode:
            raise SystemExit(f"{shlex.join(command)} failed:\n{done.stderr.strip()[-2000:]}")
        base = StoredBase(stored)
        bos = model.tokenizer.bos if model.tokenizer.add_bos else None
        for number, chunk in enumerate(base.tokens):
            window = chunk_window(tuple(chunk.tolist()), number * base.n_ctx, bos)
            logits = model.logits(window.ids)[window.first :]
            found = score(logits, window.targets, window.position, base.rows(window))
            parts.append(Differences(found["divergence"], found["rank"] == 0))
            print(f"chunk {len(parts)}: {parts[-1]}", flush=True)
    return Differences(np.concatenate([part.divergence for part in parts]), np.concatenate([part.agreement for part in parts]))


def against_reference(model: ggpy.Model, path: Path) -> dict[str, Differences]:
    """Compare with every set of logits in a stored reference, and these with each other."""
    with np.load(path) as stored:
        tokens = stored["tokens"].tolist()
        bases = {name: log_softmax(stored[name]) for name in stored.files if name.startswith("logits_")}
    ours = log_softmax(model.logits(tokens))
    found = {name: compare(base, ours) for name, base in bases.items()}
    return found | {f"{a} and {b}, each other": compare(bases[a], bases[b]) for a, b in combinations(bases, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--reference", type=Path, help="stored logits (.npz)")
    parser.add_argument("--llama-perplexity", type=Path, help="the binary to compare with")
    parser.add_argument("--text", type=Path, help="the text to compare on")
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--llama-args", default="", help="passed on to llama-perplexity")
    args = parser.parse_args()
    if not args.reference and not (args.llama_perplexity and args.text):
        parser.error("give --reference, or --llama-perplexity and --text")
    model = ggpy.load(args.model, threads=args.threads)
    if args.reference:
        for name, differences in against_reference(model, args.reference).items():
            print(f"{name}: {differences}")
    if args.llama_perplexity:
        print(f"all: {against_llama_perplexity(model, args)}")


if __name__ == "__main__":
    main()
