"""Classification heads: feature maps → one logit per class.

Each head says which of its parameters have a part for each class (`CLASS_AXES`: the axis of the classes). The logits are linear in all of
them but `QUERIES`; the layer `READOUT` adds a linear map of `readout_input` to them. With these, `train` takes over classes from another
head, and fits new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import paddle
from paddle import nn


class PooledLinearHead(nn.Layer):
    """Average and max pooled features side by side, then one linear layer.

    float32 ``[N, channels, H, W]`` → logits float32 ``[N, class_num]``. The average sees the scene, the maximum the
    small object in a corner; together they gave several points of mAP more than the average alone.
    """

    CLASS_AXES: ClassVar[Mapping[str, int]] = {"fc.weight": 1, "fc.bias": 0}
    READOUT = "fc"
    QUERIES: tuple[str, ...] = ()

    def __init__(self, channels: int, class_num: int) -> None:
        super().__init__()
        self.fc = nn.Linear(2 * channels, class_num)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.fc(self.readout_input(x))

    def readout_input(self, x: paddle.Tensor) -> paddle.Tensor:
        """Compute what the linear layer takes, for all classes the same: float32 ``[N, 2 * channels]``."""
        return pool(x)


class PooledLocalHead(nn.Layer):
    """`PooledLinearHead` plus, for each class, the maximum over the positions of a local logit, weighted by `SHARE`.

    float32 ``[N, channels, H, W]`` → logits float32 ``[N, class_num]``. A local logit is a linear map of the features at one position. It
    depends on what that position shows, so it can learn from per-location targets, which pooled features cannot.
    """

    CLASS_AXES: ClassVar[Mapping[str, int]] = {"fc.weight": 1, "fc.bias": 0, "local.weight": 0, "local.bias": 0}
    READOUT = "fc"
    QUERIES: tuple[str, ...] = ()
    SHARE = 0.4
    """Weight of the local logit. Measured on frozen ImageNet features: 0.2 to 0.8 are about equal, and 0.6 points of mAP better than 0."""

    def __init__(self, channels: int, class_num: int) -> None:
        super().__init__()
        self.fc = nn.Linear(2 * channels, class_num)
        self.local = nn.Conv2D(channels, class_num, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.with_maps(x)[0]

    def readout_input(self, x: paddle.Tensor) -> paddle.Tensor:
        """Compute what the linear layer takes, for all classes the same: float32 ``[N, 2 * channels]``."""
        return pool(x)

    def with_maps(self, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Return logits float32 ``[N, class_num]`` and the local logits ``[N, class_num, H, W]`` that went into them."""
        maps = self.local(x)
        return self.fc(self.readout_input(x)) + self.SHARE * largest(maps), maps


def pool(x: paddle.Tensor) -> paddle.Tensor:
    """Pool float32 ``[N, C, H, W]`` to ``[N, 2C]``: the average over the positions, then the maximum."""
    return paddle.concat([x.mean(axis=[2, 3]), largest(x)], axis=1)


def largest(x: paddle.Tensor) -> paddle.Tensor:
    """Take the maximum over the positions: float32 ``[N, C, H, W]`` → ``[N, C]``."""
    # Not x.max: on a CPU its gradient takes longer than the whole backbone's (Paddle 3.3, [16, 1280, 12, 12]: 6 s instead of 1 ms).
    return nn.functional.adaptive_max_pool2d(x, 1).flatten(1)


class QueryDecoderLayer(nn.Layer):
    """A transformer decoder layer whose self-attention is the identity: queries [N, Q, D] attend to memory [N, T, D].

    Post-norm; the first residual adds the queries to themselves, as removing the self-attention from Paddle's own layer does.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.cross_attn = nn.MultiHeadAttention(width, heads, dropout)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: paddle.Tensor, memory: paddle.Tensor) -> paddle.Tensor:
        queries = self.norm1(queries + self.dropout(queries))
        queries = self.norm2(queries + self.dropout(self.cross_attn(queries, memory, memory)))
        hidden = self.dropout(nn.functional.relu(self.linear1(queries)))
        return self.norm3(queries + self.dropout(self.linear2(hidden)))


class QueryDecoder(nn.Layer):
    """A stack of layers, named as in Paddle's `TransformerDecoder`."""

    def __init__(self, layers: list[nn.Layer]) -> None:
        super().__init__()
        self.layers = nn.LayerList(layers)

    def forward(self, queries: paddle.Tensor, memory: paddle.Tensor) -> paddle.Tensor:
        for layer in self.layers:
            queries = layer(queries, memory)
        return queries


class MLDecoder(nn.Layer):
    """ML-Decoder (Ridnik et al., arXiv 2111.12933) with one query per class; the parameters' names are PaddleClas's.

    Feature maps float32 ``[N, channels, H, W]`` → logits float32 ``[N, class_num]``. The queries are random and never trained;
    7,212,112 parameters for 2048 channels and 80 classes.
    """

    CLASS_AXES: ClassVar[Mapping[str, int]] = {
        "query_pos_embed.weight": 0,
        "group_conv.weight": 0,
        "group_conv.bias": 0,
    }
    READOUT = "group_conv"
    QUERIES = ("query_pos_embed.weight",)
    WIDTH, HEADS, HIDDEN, DROPOUT = 768, 8, 2048, 0.1

    def __init__(self, channels: int, class_num: int) -> None:
        super().__init__()
        self.class_num = class_num
        self.input_proj = nn.Conv2D(channels, self.WIDTH, 1)
        self.query_pos_embed = nn.Embedding(class_num, self.WIDTH)
        self.query_pos_embed.weight.stop_gradient = True
        self.decoder = QueryDecoder([QueryDecoderLayer(self.WIDTH, self.HEADS, self.HIDDEN, self.DROPOUT)])
        self.group_conv = nn.Conv2D(class_num * self.WIDTH, class_num, 1, groups=class_num)
        nn.initializer.Normal()(self.query_pos_embed.weight)
        nn.initializer.XavierNormal()(self.group_conv.weight)
        nn.initializer.Constant(0.0)(self.group_conv.bias)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        decoded = self.readout_input(x).reshape([0, -1])
        return self.group_conv(decoded.unsqueeze(-1).unsqueeze(-1)).reshape([0, -1])

    def readout_input(self, x: paddle.Tensor) -> paddle.Tensor:
        """Compute what the last layer takes, for each class its own: float32 ``[N, class_num, 768]``."""
        memory = nn.functional.relu(self.input_proj(x)).reshape([0, 0, -1]).transpose([0, 2, 1])
        queries = self.query_pos_embed.weight.unsqueeze(0).tile([x.shape[0], 1, 1])
        return self.decoder(queries, memory)


class WithSigmoid(nn.Layer):
    """A network that ends in logits, with the sigmoid that PaddleX expects inside an exported graph."""

    def __init__(self, network: nn.Layer) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return nn.functional.sigmoid(self.network(x))


HEADS: dict[str, type[nn.Layer]] = {
    "pooled": PooledLinearHead,
    "pooled_local": PooledLocalHead,
    "ml_decoder": MLDecoder,
}
"""Heads by the names that people choose: each takes the number of channels and the number of classes."""


class LogitClassifier(nn.Layer):
    """A backbone and a head: float32 ``[N, 3, S, S]`` → logits float32 ``[N, class_num]``."""

    def __init__(self, backbone: nn.Layer, head: nn.Layer) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.head(self.backbone(x))


TAIL_END = 4.0
"""Logits below minus this all move by the same amount: the exponential must not overflow in half precision."""


class MultiLabelClassifier(nn.Layer):
    """A backbone, a head, and the sigmoid that PaddleX expects inside an exported graph.

    float32 ``[N, 3, S, S]`` → scores float32 ``[N, class_num]`` in 0..1. A `tail` makes low scores lower, as calibration asked for:
    a logit z becomes z - tail·exp(min(-z, TAIL_END)).
    """

    def __init__(self, backbone: nn.Layer, head: nn.Layer, tail: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.tail = tail

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        logits = self.head(self.backbone(x))
        if self.tail:
            logits = logits - self.tail * paddle.exp(paddle.clip(-logits, max=TAIL_END))
        return nn.functional.sigmoid(logits)
