"""Parameters and bytes of a model, computed from its architecture numbers; each equals the published count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ClipVision:
    """A CLIP vision tower in front of a language model, as in LLaVA."""

    layers: int
    hidden: int
    intermediate: int
    patch: int
    image: int

    def parameters(self, language_hidden: int) -> int:
        """Tower, projector (two linear layers) and the row separator of LLaVA-1.6."""
        h = self.hidden
        positions = (self.image // self.patch) ** 2 + 1
        embeddings = h + 3 * self.patch**2 * h + positions * h
        layer = 4 * (h * h + h) + 2 * h * self.intermediate + self.intermediate + h + 4 * h
        projector = h * language_hidden + language_hidden + language_hidden**2 + language_hidden
        return embeddings + self.layers * layer + 4 * h + projector + language_hidden


@dataclass(frozen=True)
class QwenVision:
    """The vision tower of Qwen2.5-VL: RMS norms, gated MLP with biases, pairs of frames, 2x2 patches merged."""

    layers: int
    hidden: int
    intermediate: int
    patch: int
    frames: int
    merge: int

    def parameters(self, language_hidden: int) -> int:
        """Tower and merger (a norm and two linear layers over merged patches)."""
        h, ffn = self.hidden, self.intermediate
        embeddings = 3 * self.frames * self.patch**2 * h
        layer = 4 * (h * h + h) + 3 * h * ffn + 2 * ffn + h + 2 * h
        merged = self.merge**2 * h
        merger = h + merged**2 + merged + merged * language_hidden + language_hidden
        return embeddings + self.layers * layer + merger


VISION_FAMILIES: Mapping[str, type[ClipVision] | type[QwenVision]] = {"clip": ClipVision, "qwen2.5-vl": QwenVision}


@dataclass(frozen=True)
class Architecture:
    """The numbers of a model's config.json that decide its size."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    max_positions: int
    intermediate_grouped: int = 0
    qkv_bias: bool = False
    vision: ClipVision | QwenVision | None = None
    decoder_layers: int = 0
    mel_bins: int = 0
    source_positions: int = 0
    type_vocab: int = 0
    projection: int = 0
    classes: int = 0

    def decoder_linear(self, *, grouped: bool = False) -> int:
        """Weights of the matrices a quantiser touches (a file with group scales may pad the MLP to whole groups)."""
        ffn = (self.intermediate_grouped or self.intermediate) if grouped else self.intermediate
        query = self.heads * self.head_dim
        key_value = self.kv_heads * self.head_dim
        return self.layers * (2 * self.hidden * query + 2 * self.hidden * key_value + 3 * self.hidden * ffn)

    def decoder_rest(self) -> int:
        """Embedding, output head, norms and biases: always 16 bit."""
        bias = (self.heads + 2 * self.kv_heads) * self.head_dim if self.qkv_bias else 0
        return 2 * self.embedding() + self.layers * (bias + 2 * self.hidden) + self.hidden

    def vision_parameters(self) -> int:
        """Vision tower and projector, 0 without one; never quantised here."""
        return self.vision.parameters(self.hidden) if self.vision else 0

    def embedding(self) -> int:
        """One embedding table. Decoding reads one row of it per token, not the table."""
        return self.vocab * self.hidden

    def speech_parameters(self) -> int:
        """Whisper: convolutions, encoder, decoder with cross-attention, one embedding shared with the output head."""
        h, ffn = self.hidden, self.intermediate
        attention = 4 * h * h + 3 * h
        mlp = 2 * h * ffn + ffn + h
        norm = 2 * h
        encoder = self.layers * (attention + mlp + 2 * norm) + norm
        convolutions = 3 * self.mel_bins * h + h + 3 * h * h + h + self.source_positions * h
        decoder = self.decoder_layers * (2 * attention + mlp + 3 * norm) + norm
        return encoder + convolutions + decoder + self.embedding() + self.max_positions * h

    def encoder_parameters(self) -> int:
        """BERT family: embeddings, layers, the pooler (or a classifier's dense layer), projection, classifier."""
        h, ffn = self.hidden, self.intermediate
        embeddings = self.embedding() + (self.max_positions + self.type_vocab) * h + 2 * h
        layer = 4 * (h * h + h) + 2 * h * ffn + ffn + h + 4 * h
        classifier = self.classes * (h + 1)
        return embeddings + self.layers * layer + h * h + h + self.projection * h + classifier

    def kv_elements_per_token(self) -> int:
        """Numbers kept per token of context: a key and a value per layer and KV head."""
        return 2 * (self.decoder_layers or self.layers) * self.kv_heads * self.head_dim

    def cross_kv_elements(self) -> int:
        """Whisper: keys and values of one encoded 30-second window, read at every decoded token."""
        return 2 * self.decoder_layers * self.source_positions * self.hidden
