"""What keys of a config.json mean that no architecture reads: whether a model that has them may still be one that ggpy knows.

A key may be of training, generation or bookkeeping; it may repeat a size under another name; or it may change the graph, and then only the
value that leaves it as it is will do. Of a key that is in none of these tables nobody knows what it changes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

_NO_MATTER = re.compile(
    r"""
    # what the file is, and what wrote it
    architectures|auto_map|model_type|model_name|transformers\.?_?version|_?name_or_path|_commit_hash|license|tokenizer_class|(torch_)?dtype
    |use_cache|return_dict|output_(attentions|hidden_states|router_logits|scores|past)|is_decoder|id2label|label2id|num_labels|problem_type
    |task_specific_params|finetuning_task|chunk_size_feed_forward|torchscript|use_bfloat16|tf_legacy_loss|quantization_config|compression_config
    |_?attn_implementation(_internal)?|_flash_attn_2_enabled|use_flash_?(attn|attention)(_2)?|use_memory_efficient_attention|_?gradient_checkpointing
    |use_cache_(quantization|kernel)|fused?_\w+|use_fused?_\w+|(un)?sloth_\w+|unsloth_version|bf16|fp16|fp32|softmax_in_fp32|attention_softmax_in_fp32
    |rope_(scaling|parameters)\.(type|finetuned)|float32_logits|pretraining_tp|tensor_parallel_(degree|size|output)|sequence_parallel|recompute\w*|\w*_parallel_size|eos_token|bos_token|pad_token
    # how it was trained
    |(\w+_)?(dropout|pdrop|drop_?(rate|path_rate)|layer_?drop|drop_?out)(_p|_prob|_rate|_ratio)?|initializer_(range|factor)|init_(std|method\w*|range)|initializer
    |router_(aux_loss_coef|z_loss_coef|jitter_noise)|aux_loss_(alpha|coef)|seq_aux|z_loss_weight|neftune_noise_alpha|label_smoothing
    # how it is to generate
    |(bos|eos|pad|unk|sep|cls|eod|im_start|im_end|user|assistant|decoder_start|forced_(bos|eos))_token_id|(max|min)_(new_tokens|length)
    |do_sample|early_stopping|num_(beams|beam_groups|return_sequences)|diversity_penalty|temperature|top_[kp]|typical_p|repetition_penalty
    |length_penalty|(encoder_)?no_repeat_ngram_size|bad_words_ids|return_dict_in_generate|remove_invalid_values|prefix
    |exponential_decay_length_penalty|(begin_)?suppress_tokens|generation_config|max_window_size
    # for how long texts: max_position_embeddings counts
    |seq_len(gth)?|model_max_length|max_seq(uence)?_len(gth)?|n_positions|n_ctx|max_tokenizer_truncation|training_context_length
    # in which layers windows count: what is converted is no longer than the window
    |max_window_layers
    # which biases there are: tensors tell
    |(attention_|attn_|mlp_|qkv_|use_|o_|ffn_|attention_out_|attention_qkv_|use_qkv_|add_qkv_|attn_qkv_)?bias|add_bias_linear|no_bias|(use_)?(lm_)?head_bias
    """,
    re.VERBOSE,
)


def _only(*values: Any) -> Callable[[Any], bool]:
    """Whether a value is one of `values`; text in whatever case, true and false apart from 1 and 0."""

    def is_one(found: Any) -> bool:
        found = found.lower() if type(found) is str else found
        return any(found == value and (type(found) is bool) == (type(value) is bool) for value in values)

    return is_one


_FACTORS = """embedding_multiplier embedding_scale embedding_multiplier_scale scale_emb residual_multiplier residual_scale scale_residual
    scale_depth logit_scale logits_scaling logits_scale logit_multiplier lm_head_multiplier output_multiplier_scale width_multiplier
    hidden_scale mup_width_scale mup_scale_factor routed_scaling_factor partial_rotary_factor rotary_pct rotary_percent rotary_percentage
    rope_pct rope_percent rope_ratio num_loops n_group topk_group moe_layer_freq"""
_NUMBERS = """attn_logit_softcapping final_logit_softcapping attn_logit_softcap final_logit_softcap logit_softcap logits_soft_cap
    logit_softcapping clip_qkv qkv_clip attention_logit_cap window_size attention_window attention_window_size sliding_window_size
    local_window num_experts num_local_experts n_routed_experts moe_num_experts n_shared_experts num_shared_experts num_nextn_predict_layers
    num_mtp_modules first_k_dense_replace moe_layer_start_index"""
_SWITCHES_ON = """use_rope use_rotary rotary use_rotary_embeddings use_rotary_position_embeddings rope use_rms_norm rms_norm use_rmsnorm
    rmsnorm pre_norm is_causal causal use_causal_mask gated_mlp use_gated_mlp use_swiglu swiglu glu use_glu gated_linear_unit
    scale_attn_weights norm_topk_prob"""
_SWITCHES_OFF = """rope_interleaved rope_interleave rotary_interleaved interleaved_rope use_interleaved_rope alibi use_alibi learned_pos_emb
    use_dynamic_ntk use_logn_attn attn_temperature_tuning use_mrope use_parallel_residual parallel_residual parallel_attn parallel_attention
    parallel_block post_norm use_post_norm post_layer_norm apply_residual_connection_post_layernorm new_decoder_architecture multi_query
    scale_attn_by_inverse_layer_idx reorder_and_upcast_attn is_encoder_decoder tie_encoder_decoder add_cross_attention cross_attention
    scale_embedding normalize_embedding embd_layer_norm use_mup use_mla bidirectional is_bidirectional use_bidirectional_attention
    attention_gate use_gated_attention attn_output_gate use_sliding_window_attention"""
_POSITIONS = "position_embedding_type position_embedding pos_emb positional_embedding_type"
_NORMS = "norm_type norm normalization normalization_type layernorm_type layer_norm_type"
_ACTIVATIONS = "hidden_activation activation activation_function activation_type act_fn ffn_act"

_HARMLESS: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(_FACTORS.split(), _only(1)),
    **dict.fromkeys(_NUMBERS.split(), _only(0, False)),
    **dict.fromkeys(_SWITCHES_ON.split(), _only(True)),
    **dict.fromkeys(_SWITCHES_OFF.split(), _only(False, 0)),
    **dict.fromkeys(_POSITIONS.split(), _only("rope", "rotary", "absolute")),  # absolute: transformers' default, which nothing reads
    **dict.fromkeys(_NORMS.split(), _only("rmsnorm", "rms_norm", "rms")),
    **dict.fromkeys(_ACTIVATIONS.split(), _only("silu", "swish", "swiglu")),
    "mlp_type": _only("swiglu", "silu", "gated", "llama"),
    "rope_type": _only("default"),
    "scoring_func": _only("softmax"),
    "topk_method": _only("greedy"),
    "no_rope_layers": lambda found: type(found) is list and all(value == 1 for value in found),  # 1 for layers that have positions
    "layer_types": lambda found: type(found) is list and all(kind == "full_attention" for kind in found),
    "mlp_only_layers": _only([]),
    "pruned_heads": _only({}, []),
}
"""By key, the values that leave the graph as it is."""

_REPEATED: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("n_embd", "d_model", "hidden_dim", "dim", "embed_dim", "model_dim"),
    "intermediate_size": ("ffn_hidden_size", "n_inner", "ffn_dim", "d_ff", "hidden_dim_ffn"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads", "multi_query_group_num"),
    "num_key_value_heads": ("n_kv_heads", "num_kv_heads", "n_head_kv", "num_attention_groups"),
    "vocab_size": ("padded_vocab_size", "n_vocab", "embedding_size"),
    "max_position_embeddings": ("original_max_position_embeddings",),
    "rms_norm_eps": ("layer_norm_eps", "layer_norm_epsilon", "norm_eps", "layernorm_epsilon", "rms_norm_epsilon", "norm_epsilon"),
    "rope_theta": ("rope_theta", "rotary_base", "rope_base", "rotary_emb_base"),
    "head_dim": ("attention_head_dim", "head_size", "kv_channels", "rotary_dim", "rotary_ndims", "v_head_dim", "qk_head_dim",
                 "query_pre_attn_scalar", "attention_head_size"),
}  # fmt: skip
"""Keys that may stand for another under a name of their own, so long as they say the same."""

USUAL = {*_REPEATED, *["hidden_act", "tie_word_embeddings", "sliding_window", "use_sliding_window", "rope_scaling", "rope_parameters"],
         *["num_experts_per_tok", "moe_intermediate_size", "shared_expert_intermediate_size", "decoder_sparse_step"]}  # fmt: skip
"""Keys that most architectures read."""

_OF_HEADS = ("attention_multiplier", "attn_scale", "attention_scale", "softmax_scale", "scaling")
_HEAD_NORMS = ("use_qk_norm", "qk_norm", "qk_layernorm", "use_qk_layernorm", "use_head_norm")

_NEIGHBOURS = "it rotates neighbouring values of a head, not halves"
LOOKALIKES: Mapping[str, str] = {
    "Ernie4_5ForCausalLM": _NEIGHBOURS,
    "HeliumForCausalLM": _NEIGHBOURS,
    "MaincoderForCausalLM": "it norms heads of q and k behind the rotation, not before it",
}
"""Classes whose checkpoints have a known architecture's tensors and keys, and compute something else: what."""


def changes_nothing(key: str, value: Any, known: Mapping[str, Any], head_norms: bool) -> bool:
    """Whether a key that was not read, `section.key` in a section, leaves the graph as it is.

    known: the settings that were read, by the names in `_REPEATED`. head_norms: whether tensors norm each head of q and k.
    """
    if _NO_MATTER.fullmatch(key):
        return True
    key = key.rpartition(".")[2]
    if key in _HEAD_NORMS:
        return value is False or (value is True and head_norms)
    if key in _OF_HEADS:
        dim = known.get("head_dim")
        return bool(dim) and type(value) in (int, float) and math.isclose(value, dim**-0.5, rel_tol=1e-6)
    if key in _HARMLESS and _HARMLESS[key](value):
        return True
    return any(key in names and type(value) in (int, float) and value == known.get(name) for name, names in _REPEATED.items())
