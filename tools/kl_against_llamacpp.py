"""How far ggpy's predictions are from llama.cpp's on the same GGUF file: mean KL divergence per token and top-1 agreement.

    python tools/kl_against_llamacpp.py MODEL.gguf --llama-perplexity PATH --text FILE [--ctx 512] [--chunks 8]
                                        [--llama-args "-fa off"] [--other PATH] [--other-args "-fa on"]
    python tools/kl_against_llamacpp.py MODEL.gguf --reference LOGITS.npz

The first has llama-perplexity store its log-probabilities (`--kl-divergence-base`) and evaluates ggpy on the very tokens stored with
them, so the tokenizers play no part. With --other (another build) or --other-args (other settings) it also says how far llama.cpp is
from itself, the scale on which ggpy's distance is read. The second takes logits stored earlier: `tokens` int32 (n,) and `logits_*` float32
(n, n_vocab), and also says how far those lie from each other when there are several.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

import ggpy
from ggpy.evaluate import StoredBase, kl_divergence, log_softmax
from ggpy.evaluate.probabilities import BaseRows, score
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


def stored_by(binary: Path, llama_args: str, args: argparse.Namespace, path: Path) -> StoredBase:
    """What llama-perplexity predicts of the text, in a file at `path`."""
    command = [str(binary), "-m", str(args.model), "-f", str(args.text), "-c", str(args.ctx), "-b", str(args.ctx)]
    command += ["--chunks", str(args.chunks), "--kl-divergence-base", str(path), *shlex.split(llama_args)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)} failed:\n{done.stderr.strip()[-2000:]}")
    return StoredBase(path)


def between(base: BaseRows, other: BaseRows, n_rows: int) -> Differences:
    """Two stored predictions of one chunk, compared."""
    divergence, agreement = np.empty(n_rows), np.empty(n_rows, bool)
    for i in range(n_rows):
        (log_probs, probs), (others, _) = base.row(i), other.row(i)
        divergence[i] = (probs * (log_probs - others)).sum(dtype=np.float64)
        agreement[i] = log_probs.argmax() == others.argmax()
    return Differences(divergence, agreement)


def against_llama_perplexity(model: ggpy.Model, args: argparse.Namespace) -> dict[str, Differences]:
    """Compare chunk by chunk: ggpy, and the other llama.cpp where one is asked for."""
    parts: dict[str, list[Differences]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        base = stored_by(args.llama_perplexity, args.llama_args, args, Path(folder) / "base")
        other = None
        if args.other or args.other_args is not None:
            arguments = args.llama_args if args.other_args is None else args.other_args
            other = stored_by(args.other or args.llama_perplexity, arguments, args, Path(folder) / "other")
        bos = model.tokenizer.bos if model.tokenizer.add_bos else None
        for number, chunk in enumerate(base.tokens):
            window = chunk_window(tuple(chunk.tolist()), number * base.n_ctx, bos)
            logits, rows = model.logits(window.ids)[window.first :], base.rows(window)
            found = score(logits, window.targets, window.position, rows)
            parts["ggpy"].append(Differences(found["divergence"], found["rank"] == 0))
            if other is not None:
                parts["llama.cpp itself"].append(between(rows, other.rows(window), len(logits)))
            for name, of_chunks in parts.items():
                print(f"chunk {number + 1}, {name}: {of_chunks[-1]}", flush=True)
    return {
        name: Differences(np.concatenate([part.divergence for part in found]), np.concatenate([part.agreement for part in found]))
        for name, found in parts.items()
    }


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
    parser.add_argument("--other", type=Path, help="the binary of another build, to compare llama.cpp with itself")
    parser.add_argument("--other-args", help="passed on to it in place of --llama-args")
    args = parser.parse_args()
    if not args.reference and not (args.llama_perplexity and args.text):
        parser.error("give --reference, or --llama-perplexity and --text")
    model = ggpy.load(args.model, threads=args.threads)
    if args.reference:
        for name, differences in against_reference(model, args.reference).items():
            print(f"{name}: {differences}")
    if args.llama_perplexity:
        for name, differences in against_llama_perplexity(model, args).items():
            print(f"all, {name}: {differences}")


if __name__ == "__main__":
    main()
