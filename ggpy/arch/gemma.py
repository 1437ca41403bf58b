"""Gemma, and what its successors share with it: GeGLU, scaled embeddings, norms stored without their 1, a head tied to the embedding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ggpy.arch import decoder, decoder_export
from ggpy.arch.architecture import Architecture, TensorRule
from ggpy.arch.config import Config, read_config
from ggpy.arch.decoder import EMBEDDING, LAYER, heads
from ggpy.arch.hf_config import HFConfig
from ggpy.arch.hf_rope import RopeSettings, rope_settings, scaling_metadata
from ggpy.gguf import GGUFFile
from ggpy.runtime.rotary import HALVES, Rope

# --- conversion ---------------------------------------------------------------------------------------------------------


def norm(gguf: str, hf: str, size: str = "d_model") -> TensorRule:
    """The rule of a norm: x * (1 + weight) on the Hugging Face side, x * weight in GGUF."""
    return TensorRule(f"{gguf}.weight", f"{hf}.weight", (size,), plus=1.0)


ATTENTION = (
    TensorRule("blk.{i}.attn_q.weight", LAYER + "self_attn.q_proj.weight", ("d_q", "d_model")),
    TensorRule("blk.{i}.attn_k.weight", LAYER + "self_attn.k_proj.weight", ("d_kv", "d_model")),
    TensorRule("blk.{i}.attn_v.weight", LAYER + "self_attn.v_proj.weight", ("d_kv", "d_model")),
    TensorRule("blk.{i}.attn_output.weight", LAYER + "self_attn.o_proj.weight", ("d_model", "d_q")),
)
FEED_FORWARD = (
    TensorRule("blk.{i}.ffn_gate.weight", LAYER + "mlp.gate_proj.weight", ("d_ff", "d_model")),
    TensorRule("blk.{i}.ffn_up.weight", LAYER + "mlp.up_proj.weight", ("d_ff", "d_model")),
    TensorRule("blk.{i}.ffn_down.weight", LAYER + "mlp.down_proj.weight", ("d_model", "d_ff")),
)
OUTPUT_NORM = norm("output_norm", "model.norm")
IGNORED = (*decoder.IGNORED, "lm_head.weight")  # tied, always: a copy that some tools write
RULES = (
    EMBEDDING,
    norm("blk.{i}.attn_norm", LAYER + "input_layernorm"),
    *ATTENTION,
    norm("blk.{i}.ffn_norm", LAYER + "post_attention_layernorm"),
    *FEED_FORWARD,
    OUTPUT_NORM,
)
POST_NORMED_RULES = (
    EMBEDDING,
    norm("blk.{i}.attn_norm", LAYER + "input_layernorm"),
    *ATTENTION,
    norm("blk.{i}.post_attention_norm", LAYER + "post_attention_layernorm"),
    norm("blk.{i}.ffn_norm", LAYER + "pre_feedforward_layernorm"),
    *FEED_FORWARD,
    norm("blk.{i}.post_ffw_norm", LAYER + "post_feedforward_layernorm"),
    OUTPUT_NORM,
)


def shared_metadata(hf: HFConfig, rope: RopeSettings) -> dict[str, Any]:
    """The keys that all Gemmas have, without the architecture's prefix."""
    activation = hf.string("hidden_activation", hf.string("hidden_act", "gelu_pytorch_tanh"))
    if activation not in ("gelu_pytorch_tanh", "gelu"):  # the first configs say gelu and mean its tanh approximation
        raise hf.refuse("hidden_activation", "gelu_pytorch_tanh, the only activation this architecture has in GGUF")
    for key, only in (("attention_bias", False), ("use_bidirectional_attention", False)):
        if hf.boolean(key, only) is not only:
            raise hf.refuse(key, "false: GGUF has no place for it in this architecture")
    if not hf.boolean("tie_word_embeddings", True):
        raise hf.refuse("tie_word_embeddings", "true: the embedding is the head in this architecture")
    if rope.kind not in ("default", "none", "linear"):
        raise rope.scaling.refuse("rope_type" if "rope_type" in rope.scaling else "type", "one of default, linear")
    n_heads, n_kv_heads = heads(hf)
    dim, context_length = head_dim(hf), hf.integer("max_position_embeddings")
    return {
        "block_count": hf.integer("num_hidden_layers", maximum=4096),
        "context_length": context_length,
        "embedding_length": hf.integer("hidden_size"),
        "feed_forward_length": hf.integer("intermediate_size"),
        "attention.head_count": n_heads,
        "attention.head_count_kv": n_kv_heads,
        **scaling_metadata(rope, context_length),
        "rope.freq_base": rope.theta,
        "attention.layer_norm_rms_epsilon": hf.number("rms_norm_eps", 1e-6, above=0),
        "attention.key_length": dim,
        "attention.value_length": dim,
    }


def head_dim(hf: HFConfig) -> int:
    """Values per head: 256 where it is not given, as in transformers."""
    dim = hf.integer("head_dim", 256, maximum=2**16)
    if dim % 2:
        raise hf.refuse("head_dim", "an even number, for rotary pairs")
    return dim


def sizes(hf: HFConfig) -> dict[str, int]:
    """The sizes that rules name."""
    return decoder.sizes(hf, head_dim(hf))


def no_remarks(hf: HFConfig) -> list[str]:
    """A file says everything of a config.json that is not refused."""
    return []


def metadata(hf: HFConfig) -> dict[str, Any]:
    """The `gemma.*` keys of a config.json."""
    return {f"gemma.{key}": value for key, value in shared_metadata(hf, rope_settings(hf)).items()}


def export(file: GGUFFile, config: Config) -> dict[str, Any]:
    """config.json of the checkpoint that a gemma file holds."""
    values = decoder_export.hf_config(file, config, model_class="GemmaForCausalLM", model_type="gemma")
    return values | dict.fromkeys(("hidden_act", "hidden_activation"), "gelu_pytorch_tanh")


# --- running ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class GemmaConfig(Config):
    """Beside Config: layers whose attention sees a window only.

    is_local: of each layer. window: positions that local layers see, a token's own among them. local_rope: their rotary settings.
    score_scale: factor of attention scores. score_cap, logit_cap: soft caps, 0 for none.
    """

    is_local: tuple[bool, ...]
    window: int
    local_rope: Rope
    score_scale: float
    score_cap: float
    logit_cap: float

    @property
    def attention_scale(self) -> float:
        return self.score_scale


def config(file: GGUFFile) -> Config:
    """Typed hyper-parameters of a gemma file."""
    return read_config(file, "gemma", pairing=HALVES)


def embed(op, weights, config: Config):
    """(n_tokens, d_model): embeddings times sqrt(d_model)."""
    return op.scale(op.embed(weights.token_embd), math.sqrt(config.d_model))


def feed_forward(op, w, h):
    gate, up = op.linear(h, w.ffn_gate, w.ffn_up)  # (n_tokens, d_ff)
    return op.linear(op.gelu_mul(gate, up), w.ffn_down)


def layer(op, config: Config, w, cache, x):  # x: (n_tokens, d_model)
    h = op.rms_norm(x, w.attn_norm, config.norm_eps)
    q, k, v = op.linear(h, w.attn_q, w.attn_k, w.attn_v)  # (n_tokens, n_heads * head_dim), twice (n_tokens, n_kv_heads * head_dim)
    a = op.attention(op.rope(q, config.rope), cache.append(op.rope(k, config.rope), v), config.attention_scale)
    x = op.add(x, op.linear(a, w.attn_output))
    return op.add(x, feed_forward(op, w, op.rms_norm(x, w.ffn_norm, config.norm_eps)))


def forward(op, weights, config: Config):
    """Logits (n_outputs, n_vocab) of the batch that `op` holds."""
    x = embed(op, weights, config)
    for w, cache in zip(weights.layers, op.caches, strict=True):
        x = layer(op, config, w, cache, x)
    return decoder.logits(op, weights, config, x)


def post_normed_layer(op, config: GemmaConfig, w, cache, x, is_local: bool):
    """A layer of Gemma 2 and 3, which norm what attention and feed-forward give once more; Gemma 3 also each head of q and k."""
    rope, window = (config.local_rope, config.window) if is_local else (config.rope, 0)
    h = op.rms_norm(x, w.attn_norm, config.norm_eps)
    q, k, v = op.linear(h, w.attn_q, w.attn_k, w.attn_v)
    if hasattr(w, "attn_q_norm"):
        q, k = op.rms_norm(q, w.attn_q_norm, config.norm_eps), op.rms_norm(k, w.attn_k_norm, config.norm_eps)
    a = op.attention(op.rope(q, rope), cache.append(op.rope(k, rope), v), config.attention_scale, window, config.score_cap)
    x = op.add(x, op.rms_norm(op.linear(a, w.attn_output), w.post_attention_norm, config.norm_eps))
    h = feed_forward(op, w, op.rms_norm(x, w.ffn_norm, config.norm_eps))
    return op.add(x, op.rms_norm(h, w.post_ffw_norm, config.norm_eps))


def post_normed_forward(op, weights, config: GemmaConfig):
    """Logits (n_outputs, n_vocab) of the batch that `op` holds."""
    x = embed(op, weights, config)
    for w, cache, is_local in zip(weights.layers, op.caches, config.is_local, strict=True):
        x = post_normed_layer(op, config, w, cache, x, is_local)
    x = decoder.logits(op, weights, config, x)
    return op.soft_cap(x, config.logit_cap) if config.logit_cap else x


def post_normed_shapes(config: Config, *, head_norms: bool = False) -> dict[str, tuple[int, ...]]:
    """As `decoder.shapes`, with the norms behind attention and feed-forward."""
    norms = ("post_attention_norm", "post_ffw_norm")
    added = {f"blk.{i}.{name}.weight": (config.d_model,) for i in range(config.n_layers) for name in norms}
    return decoder.shapes(config, head_norms=head_norms) | added


GEMMA = Architecture(
    name="gemma",
    hf_classes=("GemmaForCausalLM",),
    rules=RULES,
    sizes=sizes,
    metadata=metadata,
    extra_tensors=lambda hf: {},
    remarks=no_remarks,
    ignored=IGNORED,
    by_structure=False,  # embeddings are scaled, norms have a 1 added
    config=config,
    shapes=decoder.shapes,
    forward=forward,
    hf_config=export,
)
