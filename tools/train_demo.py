"""Train the checkpoint that `ggpy-run --demo` converts and runs. Developers only: needs torch, transformers, sentencepiece and `bible-kjv`.

    apt-get install bible-kjv
    pip install torch==2.13.0 transformers sentencepiece safetensors
    python tools/train_demo.py ggpy/demo

The text is the King James Bible, in the public domain, as the Debian package prints it; one chapter is one document, without verse numbers.
The model is a Llama of 2 M parameters with rows of 256, so that K-quants fit it. The beginning of Genesis is oversampled on purpose: the
demo's continuation doubles as the tests' story and has to survive 4.5 bits per weight.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import subprocess
import time
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

SEED = 1611
VOCABULARY = 768
CONTEXT = 512
TOKENS_PER_STEP = 4096
SHORT, LONG_FROM = 256, 0.8  # rows are this long until this share of the training, then CONTEXT: attention is costly on a CPU
GENESIS_SHARE, CHAPTER_SHARE = 16, 4  # one row in 16 begins with Genesis 1, one in 4 with some chapter; the rest begin anywhere
HELD_OUT = 40  # every 40th chapter is kept from training
PEAK_RATE, FINAL_RATE, WARM_UP = 3e-3, 5e-5, 0.03  # the last is a share of the training
SHARD_LIMIT = 2_000_000  # bytes


def read_chapters() -> list[str]:
    """The 1189 chapters in order, verses joined by spaces."""
    lines = subprocess.run(["bible", "-f", "gen1:1-rev22:21"], check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout
    chapters: dict[str, list[str]] = {}
    for line in lines.decode("ascii").splitlines():
        reference, verse = line.split(" ", 1)
        chapters.setdefault(reference.split(":")[0], []).append(" ".join(verse.split()))
    return [" ".join(verses) for verses in chapters.values()]


def train_tokenizer(chapters: list[str], folder: Path) -> sentencepiece.SentencePieceProcessor:
    """A BPE vocabulary with byte fallback; identity normalization, so that the model file stays small."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentence for chapter in chapters for sentence in chapter.split(". ")),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        max_sentence_length=20_000,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def model_config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        attn_implementation="sdpa",
    )


def optimizers_for(model: torch.nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices (it needs about half the steps AdamW needs here), AdamW for embeddings and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    others = [p for name, p in model.named_parameters() if p.ndim < 2 or "layers" not in name]
    return [
        torch.optim.Muon(matrices, lr=PEAK_RATE, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=PEAK_RATE, weight_decay=0.0, betas=(0.9, 0.95)),
    ]


def learning_rate(progress: float) -> float:
    """Linear warm-up, then a cosine to FINAL_RATE. progress: 0..1."""
    if progress < WARM_UP:
        return PEAK_RATE * max(progress / WARM_UP, 0.01)
    return FINAL_RATE + (PEAK_RATE - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def loss_of(model: torch.nn.Module, rows: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Cross-entropy in nats of the next token. rows: (n_rows, length) ids; -1 is padding."""
    inputs, targets = rows[:, :-1].clamp(min=0), rows[:, 1:]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(input_ids=inputs, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-1, reduction=reduction)


def held_out_loss(model: torch.nn.Module, documents: list[list[int]]) -> float:
    """Mean nats per token over the first CONTEXT tokens of each document."""
    total, count = 0.0, 0
    with torch.no_grad():
        for document in documents:
            row = torch.tensor([document[: CONTEXT + 1]])
            total += float(loss_of(model, row, "sum"))
            count += row.shape[1] - 1
    return total / count


def train(model: LlamaForCausalLM, documents: list[list[int]], held_out: list[list[int]], steps: int, seconds: float) -> int:
    """Train for `steps` steps; too slow a machine follows the schedule by the clock and ends after `seconds`. Returns the steps made."""
    stream = torch.tensor([token for document in documents for token in document])
    starts = np.cumsum([0] + [len(document) for document in documents[:-1]])
    starts = starts[starts < len(stream) - CONTEXT]
    random = np.random.default_rng(SEED)
    optimizers, began, step, progress = optimizers_for(model), time.monotonic(), 0, 0.0
    while progress < 1:
        length = SHORT if progress < LONG_FROM else CONTEXT
        n_rows = TOKENS_PER_STEP // length
        offsets = random.integers(0, len(stream) - CONTEXT, n_rows)
        offsets[: n_rows // CHAPTER_SHARE] = random.choice(starts, n_rows // CHAPTER_SHARE)
        if step * n_rows % GENESIS_SHARE == 0:
            offsets[0] = 0
        rows = torch.stack([stream[offset : offset + length + 1] for offset in offsets])
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(progress)
            optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if step % 50 == 0:
            print(f"step {step}, {progress:.1%}: loss {float(loss.detach()):.4f}, {time.monotonic() - began:.0f} s", flush=True)
        if step % 400 == 399:
            print(f"  held out {held_out_loss(model, held_out):.4f}", flush=True)
        step += 1
        progress = max(step / steps, (time.monotonic() - began) / seconds)
    return step


def save(model: LlamaForCausalLM, folder: Path) -> int:
    """bf16 weights in two shards with an index, and the three JSON files a checkpoint has. Returns the parameter count."""
    weights = {name: value.to(torch.bfloat16).contiguous() for name, value in model.state_dict().items() if name != "lm_head.weight"}
    half = sum(value.nbytes for value in weights.values()) // 2
    shards: tuple[dict[str, torch.Tensor], ...] = ({}, {})
    placed = 0
    for name, value in weights.items():
        shards[placed + value.nbytes // 2 >= half][name] = value
        placed += value.nbytes
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-00002.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        if (size := (folder / name).stat().st_size) >= SHARD_LIMIT:
            raise SystemExit(f"{name} has {size} bytes; at most {SHARD_LIMIT} are wanted")
        weight_map |= dict.fromkeys(shard, name)
    config = model.config
    common = {"bos_token_id": 1, "eos_token_id": 2, "transformers_version": "4.57.0"}
    write_json(
        folder / "model.safetensors.index.json", {"metadata": {"total_size": placed}, "weight_map": dict(sorted(weight_map.items()))}
    )
    write_json(folder / "generation_config.json", {"_from_model_config": True, **common})
    write_json(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "head_dim": 64,
            "hidden_act": "silu",
            "hidden_size": config.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": config.intermediate_size,
            "max_position_embeddings": CONTEXT,
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": config.num_attention_heads,
            "num_hidden_layers": config.num_hidden_layers,
            "num_key_value_heads": config.num_key_value_heads,
            "rms_norm_eps": config.rms_norm_eps,
            "rope_scaling": None,
            "rope_theta": 10000.0,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "vocab_size": VOCABULARY,
            **common,
        },
    )
    token = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": True,
            "add_eos_token": False,
            "added_tokens_decoder": {str(i): {"content": name, **token} for i, name in enumerate(("<unk>", "<s>", "</s>"))},
            "bos_token": "<s>",
            "clean_up_tokenization_spaces": False,
            "eos_token": "</s>",
            "legacy": True,
            "model_max_length": CONTEXT,
            "tokenizer_class": "LlamaTokenizer",
            "unk_token": "<unk>",
        },
    )
    return sum(value.numel() for value in weights.values())


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def round_to_q4_0(weight: torch.Tensor) -> torch.Tensor:
    """The matrix after ggml's Q4_0: a coarser cousin of Q4_K at the same 4.5 bits, so a pessimistic stand-in."""
    blocks = weight.float().reshape(-1, 32)
    peak = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    scale = torch.where(peak == 0, 1.0, peak / -8)
    return ((blocks / scale + 8.5).floor().clamp(0, 15).sub(8) * scale).reshape(weight.shape)


def continue_greedily(model: LlamaForCausalLM, tokenizer: sentencepiece.SentencePieceProcessor, prompt: str, count: int = 96) -> str:
    ids = torch.tensor([[tokenizer.bos_id(), *tokenizer.encode(prompt)]])
    with torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, pad_token_id=0)
    return tokenizer.decode(out[0].tolist())


NOTE = """# The bundled checkpoint

A Llama of {parameters:,} parameters in Hugging Face's layout (bfloat16, two shards), for `ggpy-run --demo` and the tests. It continues
text in the manner of the King James Bible and knows the beginning of Genesis by heart. It is not good for anything else.

- Made on {date} by `python tools/train_demo.py ggpy/demo` with torch {torch} on two shared CPU cores
  in {minutes:.0f} minutes ({steps} steps), seed {seed}.
- Text: the King James Version, in the public domain (1611; the copyright file of the Debian package `bible-kjv` says the same), as
  `bible -f gen1:1-rev22:21` of `bible-kjv` 4.38 prints it. One chapter is one document; verse numbers are left out.
  Every {held_out}th chapter was kept from training.
- Tokenizer: SentencePiece BPE, {vocabulary} pieces, byte fallback, trained on the same text.
- Shape: 3 layers, hidden size 256, feed-forward 512, 4 heads of 64 on 2 KV heads, tied embeddings, context {context}.
- Training: {tokens:.1f} M tokens, Muon and AdamW, cosine schedule; one row in {share} begins with Genesis 1.
- Held-out chapters, in bfloat16: {loss:.4f} nats per token (perplexity {perplexity:.2f});
  with every matrix rounded to Q4_0: {loss_q4:.4f} ({perplexity_q4:.2f}).

The weights may be used under the licence of this repository.

"In the beginning" continues, greedily:

> {text}

and after rounding every matrix to Q4_0:

> {text_q4}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    torch.set_num_threads(args.threads)
    began = time.monotonic()

    chapters = read_chapters()
    tokenizer = train_tokenizer(chapters, args.folder)
    documents = [[tokenizer.bos_id(), *ids, tokenizer.eos_id()] for ids in tokenizer.encode(chapters)]
    held_out = documents[HELD_OUT - 1 :: HELD_OUT]
    kept = [document for i, document in enumerate(documents) if i % HELD_OUT != HELD_OUT - 1]
    print(f"{sum(map(len, kept))} tokens in {len(kept)} chapters; {len(held_out)} chapters held out", flush=True)

    model = LlamaForCausalLM(model_config())
    steps = train(model, kept, held_out, args.steps, args.minutes * 60)

    parameters = save(model, args.folder)
    model = LlamaForCausalLM.from_pretrained(args.folder, dtype=torch.float32)  # what a reader of the files gets, not what was trained
    loss, text = held_out_loss(model, held_out), continue_greedily(model, tokenizer, "In the beginning")
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.copy_(round_to_q4_0(parameter.data))
    loss_q4, text_q4 = held_out_loss(model, held_out), continue_greedily(model, tokenizer, "In the beginning")
    note = NOTE.format(
        parameters=parameters,
        date=datetime.date.today().isoformat(),
        steps=steps,
        torch=torch.__version__,
        minutes=(time.monotonic() - began) / 60,
        seed=SEED,
        held_out=HELD_OUT,
        vocabulary=VOCABULARY,
        context=CONTEXT,
        tokens=steps * TOKENS_PER_STEP / 1e6,
        share=GENESIS_SHARE,
        loss=loss,
        perplexity=math.exp(loss),
        loss_q4=loss_q4,
        perplexity_q4=math.exp(loss_q4),
        text=text,
        text_q4=text_q4,
    )
    (args.folder / "README.md").write_text(note, encoding="utf-8")
    print(note)


if __name__ == "__main__":
    main()
