"""CLIP's ViT-B/16 at 448 pixels with ML-Decoder.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (arXiv 2103.00020): a vision transformer with
a norm before its blocks. Built for 224 pixels; its 14×14 table of positions is resized for larger images. The parameters' names are
PaddleClas's, so that its weights load as they are. As PaddleClas's (foundation_vit.py), it differs from OpenAI's network: GELU instead
of QuickGELU, and the projection into the space of texts is kept in the weights but not used.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import paddle
from paddle import nn

from mlcls_ray.models.heads import MLDecoder
from mlcls_ray.models.networks.spec import NetworkSpec

WIDTH, DEPTH, HEADS, PATCH = 768, 12, 12, 16
TABLE = 14
"""Positions along a side of the trained table: 224 pixels in patches of 16."""
TEXT_WIDTH = 512
"""Width of the space that CLIP shares with texts."""


class PatchEmbedding(nn.Layer):
    """float32 [N, 3, S, S] → [N, 768, S/16, S/16]."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2D(3, WIDTH, PATCH, PATCH, bias_attr=False)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.proj(x)


class Attention(nn.Layer):
    """Self-attention over tokens [N, T, 768], with one projection for query, key and value."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        tokens = x.shape[1]
        split = self.qkv(x).reshape([-1, tokens, 3, HEADS, WIDTH // HEADS]).transpose([2, 0, 3, 1, 4])
        query, key, value = split[0], split[1], split[2]
        weights = nn.functional.softmax(query.matmul(key, transpose_y=True) * (WIDTH // HEADS) ** -0.5, axis=-1)
        return self.proj(weights.matmul(value).transpose([0, 2, 1, 3]).reshape([-1, tokens, WIDTH]))


class Mlp(nn.Layer):
    """Two linear layers with GELU between them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(WIDTH, 4 * WIDTH)
        self.fc2 = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Layer):
    """A pre-norm transformer block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = Attention()
        self.mlp = Mlp()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ClipViTML(nn.Layer):
    """float32 ``[N, 3, S, S]``, S a multiple of 16 → logits float32 ``[N, class_num]``.

    `memory` is what ML-Decoder attends to. PaddleClas removes the class token and then takes the first of the remaining tokens, so that its
    decoder sees one patch of the image. That looks like an oversight, because attention over a single token ignores the queries, but
    PaddleX's weights go with it: `first_patch`. Fine-tuning uses all `patches`. The parameters are the same.
    """

    def __init__(
        self, class_num: int, memory: Literal["first_patch", "patches"] = "first_patch", depth: int = DEPTH
    ) -> None:
        super().__init__()
        normal = nn.initializer.TruncatedNormal(std=0.02)
        self.patch_embed = PatchEmbedding()
        self.cls_token = self.create_parameter([1, 1, WIDTH], default_initializer=normal)
        self.pos_embed = self.create_parameter([1, TABLE * TABLE + 1, WIDTH], default_initializer=normal)
        self.ln_pre = nn.LayerNorm(WIDTH)
        self.blocks = nn.LayerList([Block() for _ in range(depth)])
        self.norm = nn.LayerNorm(WIDTH)
        self.head = MLDecoder(WIDTH, class_num)
        self.memory = memory
        zeros = nn.initializer.Constant(0.0)
        self.proj = self.create_parameter(
            [WIDTH, TEXT_WIDTH], default_initializer=zeros
        )  # PaddleClas's weights hold it

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        patches = self.patch_embed(x)
        side = patches.shape[2]
        tokens = patches.reshape([0, 0, -1]).transpose([0, 2, 1])
        class_token = self.cls_token.tile([x.shape[0], 1, 1])
        tokens = self.ln_pre(paddle.concat([class_token, tokens], axis=1) + self.positions(side))
        for block in self.blocks:
            tokens = block(tokens)
        if self.memory == "first_patch":
            return self.head(self.norm(tokens[:, 1]).unsqueeze(-1).unsqueeze(-1))
        maps = self.norm(tokens[:, 1:]).transpose([0, 2, 1])
        return self.head(maps.reshape([-1, WIDTH, side, side]))

    def positions(self, side: int) -> paddle.Tensor:
        """Position embeddings for side×side patches, float32 [1, side² + 1, 768]."""
        if side == TABLE:
            return self.pos_embed
        table = self.pos_embed[:, 1:].reshape([1, TABLE, TABLE, WIDTH]).transpose([0, 3, 1, 2])
        resized = nn.functional.interpolate(table, size=[side, side], mode="bicubic", align_corners=False)
        return paddle.concat([self.pos_embed[:, :1], resized.reshape([0, 0, -1]).transpose([0, 2, 1])], axis=1)


BASE_PATCH16_448 = NetworkSpec(
    name="CLIP_vit_base_patch16_448_ML",
    build=ClipViTML,
    build_trainable=partial(ClipViTML, memory="patches"),
    channels=WIDTH,
    input_size=448,
    head_attribute="head",
    unused=frozenset({"proj"}),
)
