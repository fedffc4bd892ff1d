"""Language models of transformers, with small random configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import transformers

from tests.exports.architecture import Architecture, Input, Variant, ids, mask

SMALL = {
    "vocab_size": 120,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
"""Of most; the others say the same in words of their own below."""

WORDS = {"input_ids": Input("batch length", ids(118, 2))}
MASKED = {**WORDS, "attention_mask": Input("batch length", mask)}
LENGTHS = ({"batch": 2, "length": 11}, {"batch": 1, "length": 17}, {"batch": 3, "length": 6})
TWO = {**MASKED, "decoder_input_ids": Input("batch words", ids(118, 2))}
TWO_LENGTHS = ({"batch": 2, "length": 11, "words": 5}, {"batch": 1, "length": 17, "words": 7})


def language(
    name: str,
    model: str,
    config: str,
    *variants: Variant,
    inputs: Mapping[str, Input] = MASKED,
    sizes: Sequence[Mapping[str, int]] = LENGTHS,
    **options: Any,
) -> Architecture:
    """A model and its configuration by their names; without the caches of earlier keys."""

    def build() -> Any:
        chosen = getattr(transformers, config)(**options)
        chosen.use_cache = False
        return getattr(transformers, model)(chosen)

    return Architecture(name, "language", build, inputs, sizes, True, variants)


def encoder(name: str, *variants: Variant, **options: Any) -> Architecture:
    """A masked language model, named as transformers names its classes."""
    return language(
        name.lower(), f"{name}ForMaskedLM", f"{name}Config", *variants, **SMALL, **options
    )


def decoder(name: str, *variants: Variant, **options: Any) -> Architecture:
    """A causal language model, named as transformers names its classes."""
    return language(
        name.lower(), f"{name}ForCausalLM", f"{name}Config", *variants, **SMALL, **options
    )


BART = {
    "vocab_size": 120,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
}
T5 = {"vocab_size": 120, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}

LANGUAGE = (
    encoder("Bert", "float16", "dynamic int8"),
    encoder("Roberta"),
    encoder("Albert", embedding_size=16),
    encoder("Electra", embedding_size=16),
    encoder("MPNet"),
    encoder("ConvBert", embedding_size=32),
    encoder("RoFormer", embedding_size=32),
    encoder("MobileBert", embedding_size=32, intra_bottleneck_size=32, true_hidden_size=32),
    encoder("SqueezeBert", embedding_size=32),
    encoder("DebertaV2", relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8),
    encoder(
        "ModernBert",
        global_attn_every_n_layers=2,
        local_attention=8,
        pad_token_id=0,
        attn_implementation="eager",
    ),
    language(
        "distilbert",
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        vocab_size=120,
        dim=32,
        n_layers=2,
        n_heads=4,
        hidden_dim=64,
        max_position_embeddings=64,
    ),
    language("fnet", "FNetForMaskedLM", "FNetConfig", inputs=WORDS, **SMALL),
    language(
        "gpt2",
        "GPT2LMHeadModel",
        "GPT2Config",
        "float16",
        "dynamic int8",
        vocab_size=120,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
    ),
    language(
        "gptj",
        "GPTJForCausalLM",
        "GPTJConfig",
        vocab_size=120,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        rotary_dim=8,
    ),
    decoder("GPTNeoX"),
    decoder("OPT", ffn_dim=64, word_embed_proj_dim=32),
    language(
        "bloom",
        "BloomForCausalLM",
        "BloomConfig",
        vocab_size=120,
        hidden_size=32,
        n_layer=2,
        n_head=4,
    ),
    decoder("Llama", "float16", "dynamic int8", num_key_value_heads=2),
    decoder("Mistral", num_key_value_heads=2, sliding_window=6),
    decoder("Qwen2", num_key_value_heads=2),
    decoder("Qwen3", num_key_value_heads=2, head_dim=8),
    decoder("Gemma", num_key_value_heads=1, head_dim=8),
    decoder("Gemma2", num_key_value_heads=2, head_dim=8, sliding_window=6),
    decoder("Phi", num_key_value_heads=4),
    decoder("StableLm"),
    decoder("Mixtral", num_key_value_heads=2, num_local_experts=4),
    language(
        "mamba",
        "MambaForCausalLM",
        "MambaConfig",
        inputs=WORDS,
        vocab_size=120,
        hidden_size=32,
        num_hidden_layers=2,
        state_size=8,
    ),
    language(
        "rwkv",
        "RwkvForCausalLM",
        "RwkvConfig",
        inputs=WORDS,
        vocab_size=120,
        hidden_size=32,
        num_hidden_layers=2,
        context_length=64,
    ),
    language("t5", "T5ForConditionalGeneration", "T5Config", inputs=TWO, sizes=TWO_LENGTHS, **T5),
    language("t5 encoder", "T5EncoderModel", "T5Config", **T5),
    language(
        "bart", "BartForConditionalGeneration", "BartConfig", inputs=TWO, sizes=TWO_LENGTHS, **BART
    ),
    language(
        "marian",
        "MarianMTModel",
        "MarianConfig",
        inputs=TWO,
        sizes=TWO_LENGTHS,
        pad_token_id=119,
        **BART,
    ),
    language(
        "m2m100",
        "M2M100ForConditionalGeneration",
        "M2M100Config",
        inputs=TWO,
        sizes=TWO_LENGTHS,
        **BART,
    ),
)
