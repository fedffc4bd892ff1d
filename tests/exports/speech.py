"""Speech and audio: transformers and torchaudio."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torchaudio
import transformers

from tests.exports.architecture import Architecture, Input, Variant, ids

AUDIO = {"input_values": Input("batch samples")}
SAMPLES = ({"batch": 2, "samples": 1600}, {"batch": 1, "samples": 2400})
SMALL = {
    "vocab_size": 32,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16, 16, 16),
    "conv_stride": (5, 4, 2),
    "conv_kernel": (10, 8, 4),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
WHISPER = {
    "vocab_size": 120,
    "num_mel_bins": 16,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_source_positions": 50,
    "max_target_positions": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}


def speech(
    name: str,
    model: str,
    config: str,
    *variants: Variant,
    inputs: Mapping[str, Input] = AUDIO,
    sizes: Sequence[Mapping[str, int]] = SAMPLES,
    **options: Any,
) -> Architecture:
    """A model of transformers and its configuration, by their names."""

    def build() -> Any:
        chosen = getattr(transformers, config)(**options)
        chosen.use_cache = False
        return getattr(transformers, model)(chosen)

    return Architecture(name, "speech", build, inputs, sizes, True, variants)


def whisper_encoder() -> Any:
    config = transformers.WhisperConfig(**WHISPER)
    return transformers.WhisperModel(config).get_encoder()


def audio(
    name: str, build: Callable[[], Any], inputs: Mapping[str, Input], *sizes: Mapping[str, int]
) -> Architecture:
    return Architecture(name, "speech", build, inputs, sizes)


def lengths(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Frames of each sequence, of which the longest has all 12."""
    return np.maximum(random.integers(6, 13, shape), 12 * (np.arange(*shape) == 0))


models = torchaudio.models

SPEECH = (
    speech("wav2vec2", "Wav2Vec2ForCTC", "Wav2Vec2Config", "float16", "dynamic int8", **SMALL),
    speech(
        "wav2vec2 layer norm",
        "Wav2Vec2ForCTC",
        "Wav2Vec2Config",
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        **SMALL,
    ),
    speech("hubert", "HubertForCTC", "HubertConfig", **SMALL),
    speech("wavlm", "WavLMForCTC", "WavLMConfig", **SMALL),
    speech("data2vec audio", "Data2VecAudioForCTC", "Data2VecAudioConfig", **SMALL),
    speech("unispeech", "UniSpeechForCTC", "UniSpeechConfig", num_ctc_classes=32, **SMALL),
    Architecture(
        "whisper encoder",
        "speech",
        whisper_encoder,
        {"input_features": Input("batch 16 100")},
        ({"batch": 2}, {"batch": 1}),
        True,
        ("float16", "dynamic int8"),
    ),
    speech(
        "whisper",
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        inputs={
            "input_features": Input("batch 16 100"),
            "decoder_input_ids": Input("batch words", ids(118, 3)),
        },
        sizes=({"batch": 2, "words": 5}, {"batch": 1, "words": 8}),
        **WHISPER,
    ),
    speech(
        "audio spectrogram transformer",
        "ASTForAudioClassification",
        "ASTConfig",
        inputs={"input_values": Input("batch 64 32")},
        sizes=({"batch": 2}, {"batch": 1}),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        patch_size=8,
        max_length=64,
        num_mel_bins=32,
    ),
    speech(
        "encodec",
        "EncodecModel",
        "EncodecConfig",
        inputs={"input_values": Input("batch 1 samples")},
        sizes=SAMPLES,
        num_filters=8,
        upsampling_ratios=[4, 2],
        codebook_size=32,
        hidden_size=16,
        codebook_dim=16,
        target_bandwidths=[6.0],
    ),
    speech(
        "vits",
        "VitsModel",
        "VitsConfig",
        inputs={"input_ids": Input("batch length", ids(30, 1))},
        sizes=({"batch": 1, "length": 9}, {"batch": 1, "length": 12}),
        vocab_size=38,
        hidden_size=16,
        num_hidden_layers=1,
        ffn_dim=32,
        flow_size=16,
        spectrogram_bins=9,
        upsample_initial_channel=32,
        noise_scale=0.0,
        noise_scale_duration=0.0,
        use_stochastic_duration_prediction=False,
        depth_separable_num_layers=1,
        duration_predictor_filter_channels=16,
    ),
    audio(
        "wav2letter",
        lambda: models.Wav2Letter(num_classes=20, input_type="mfcc", num_features=13),
        {"x": Input("batch 13 frames")},
        {"batch": 2, "frames": 80},
        {"batch": 1, "frames": 120},
    ),
    audio(
        "deepspeech",
        lambda: models.DeepSpeech(n_feature=24, n_hidden=32, n_class=20),
        {"x": Input("batch 1 frames 24")},
        {"batch": 2, "frames": 20},
        {"batch": 1, "frames": 31},
    ),
    audio(
        "conv-tasnet",
        lambda: models.ConvTasNet(
            enc_kernel_size=8,
            enc_num_feats=16,
            msk_num_feats=12,
            msk_num_hidden_feats=16,
            msk_num_layers=3,
            msk_num_stacks=2,
        ),
        {"input": Input("batch 1 samples")},
        {"batch": 2, "samples": 400},
        {"batch": 1, "samples": 600},
    ),
    audio(
        "torchaudio conformer",
        lambda: models.Conformer(24, 4, 32, 2, 7),
        {"input": Input("batch 12 24"), "lengths": Input("batch", lengths)},
        {"batch": 2},
        {"batch": 3},
    ),
    audio(
        "wavernn",
        lambda: models.WaveRNN(
            [2, 2, 3], 32, 12, n_rnn=16, n_fc=16, n_freq=20, n_res_block=2, n_hidden=16, n_output=16
        ),
        {"waveform": Input("batch 1 96"), "specgram": Input("batch 1 20 12")},
        {"batch": 2},
        {"batch": 1},
    ),
)
