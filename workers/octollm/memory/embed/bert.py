"""The encoder of a BERT model in numpy, fp32: token ids in, one vector a text out (mean of its tokens, length 1).

Texts are laid one after another into one matrix, so that no matrix product is spent on padding. What can be
computed once from the weights is: the scale of the attention goes into the queries, the bias of the keys cancels in the
softmax, the bias of the values moves behind the attention, GELU's scale into the layers around it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from octollm.memory.embed.gelu import SCALE, ScaledGelu

Array = NDArray[np.float32]

_SCORES = 1 << 18  # attention scores held at once, where one text has fewer: what the second-level cache takes


@dataclass(frozen=True, slots=True)
class Shape:
    """Of the model, from its config.json."""

    hidden: int
    inner: int
    heads: int
    layers: int
    epsilon: float


@dataclass(frozen=True, slots=True)
class _Norm:
    gain: Array
    bias: Array


@dataclass(frozen=True, slots=True)
class _Layer:
    query_key_value: Array
    """Shape (hidden, 3 * hidden)."""
    query_bias: Array
    attended: Array
    attended_bias: Array
    attended_norm: _Norm
    inner: Array
    inner_bias: Array
    outer: Array
    outer_bias: Array
    outer_norm: _Norm


class Bert:
    """One model. Not for two threads at once."""

    def __init__(self, shape: Shape, tensor: Callable[[str], Array]) -> None:
        """`tensor`: reads one by its name in the model's file; raises KeyError for a name that is not there."""
        self.shape = shape
        self._words = tensor("embeddings.word_embeddings.weight")
        kind = tensor("embeddings.token_type_embeddings.weight")[0]
        self._places = tensor("embeddings.position_embeddings.weight") + kind
        self._norm = _norm(tensor, "embeddings.LayerNorm")
        self._gelu = ScaledGelu(shape.inner)
        self._layers = [self._layer(tensor, f"encoder.layer.{number}") for number in range(shape.layers)]
        self._mean = np.full(shape.hidden, 1 / shape.hidden, dtype=np.float32)

    def _layer(self, tensor: Callable[[str], Array], prefix: str) -> _Layer:
        def weight(name: str) -> NDArray[np.float64]:
            return tensor(f"{prefix}.{name}.weight").astype(np.float64).T

        def bias(name: str) -> NDArray[np.float64]:
            return tensor(f"{prefix}.{name}.bias").astype(np.float64)

        scale = 1 / math.sqrt(self.shape.hidden // self.shape.heads)
        attended = weight("attention.output.dense")
        parts = (weight("attention.self.query") * scale, weight("attention.self.key"), weight("attention.self.value"))
        return _Layer(
            query_key_value=_float32(np.concatenate(parts, axis=1)),
            query_bias=_float32(bias("attention.self.query") * scale),
            attended=_float32(attended),
            attended_bias=_float32(bias("attention.self.value") @ attended + bias("attention.output.dense")),
            attended_norm=_norm(tensor, f"{prefix}.attention.output.LayerNorm"),
            inner=_float32(weight("intermediate.dense") * SCALE),
            inner_bias=self._gelu.tiled(_float32(bias("intermediate.dense") * SCALE)),
            outer=_float32(weight("output.dense") / SCALE),
            outer_bias=_float32(bias("output.dense")),
            outer_norm=_norm(tensor, f"{prefix}.output.LayerNorm"),
        )

    def encode(self, texts: Sequence[Sequence[int]]) -> Array:
        """Token ids of each text, special ones included, none empty.

        Fastest where equal lengths lie side by side.
        """
        lengths = [len(text) for text in texts]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        # Far from zero exp leaves fp32 on purpose; `_attend` and the GELU say what then comes out.
        with np.errstate(over="ignore", under="ignore"):
            x = self._words[np.concatenate([np.asarray(text) for text in texts])]
            for start, length in zip(starts, lengths, strict=False):
                x[start : start + length] += self._places[:length]
            self._normalise(x, self._norm)
            self._run(x, lengths)
        pooled: Array = np.add.reduceat(x, starts[:-1], axis=0)
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
        return pooled

    def _run(self, x: Array, lengths: Sequence[int]) -> None:
        rows, hidden = x.shape
        query_key_value = np.empty((rows, 3 * hidden), dtype=np.float32)
        context, y = np.empty_like(x), np.empty_like(x)
        inner = np.empty((rows, self.shape.inner), dtype=np.float32)
        groups = list(_groups(lengths, self.shape.heads))
        scores = np.empty(max(n * length * length for _, n, length in groups) * self.shape.heads, dtype=np.float32)
        for layer in self._layers:
            np.matmul(x, layer.query_key_value, out=query_key_value)
            query_key_value[:, :hidden] += layer.query_bias
            for start, texts, length in groups:
                part = slice(start, start + texts * length)
                self._attend(query_key_value[part], context[part], texts, scores)
            np.matmul(context, layer.attended, out=y)
            y += layer.attended_bias
            y += x
            self._normalise(y, layer.attended_norm)
            np.matmul(y, layer.inner, out=inner)
            self._gelu.apply(inner, layer.inner_bias)
            np.matmul(inner, layer.outer, out=x)
            x += layer.outer_bias
            x += y
            self._normalise(x, layer.outer_norm)

    def _attend(self, query_key_value: Array, context: Array, texts: int, scratch: Array) -> None:
        """Attention within each of `texts` texts of one length."""
        heads, hidden = self.shape.heads, self.shape.hidden
        length = len(context) // texts
        split = query_key_value.reshape(texts, length, 3, heads, hidden // heads)
        query, key, value = (split[:, :, part].transpose(0, 2, 1, 3) for part in range(3))
        out = context.reshape(texts, length, heads, hidden // heads).transpose(0, 2, 1, 3)
        scores = scratch[: texts * heads * length * length].reshape(texts, heads, length, length)
        np.matmul(query, key.transpose(0, 1, 3, 2), out=scores)
        np.exp(scores, out=scores)
        ones = np.ones(length, dtype=np.float32)
        sums = scores.reshape(-1, length) @ ones
        # A softmax without its usual subtraction of the maximum is the same number for half the work, as long
        # as nothing leaves fp32. Where it does, the usual way.
        if not 1e-30 < sums.min() <= sums.max() < np.inf:
            np.matmul(query, key.transpose(0, 1, 3, 2), out=scores)
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            sums = scores.reshape(-1, length) @ ones
        np.matmul(scores, value, out=out)
        out /= sums.reshape(texts, heads, length, 1)

    def _normalise(self, x: Array, norm: _Norm) -> None:
        """Layer norm, in place."""
        x -= (x @ self._mean)[:, None]
        scale = np.einsum("ij,ij->i", x, x)
        scale /= x.shape[1]
        scale += self.shape.epsilon
        np.sqrt(scale, out=scale)
        np.reciprocal(scale, out=scale)
        x *= scale[:, None]
        x *= norm.gain
        x += norm.bias


def _groups(lengths: Sequence[int], heads: int) -> Iterator[tuple[int, int, int]]:
    """First row, number of texts and their length, of texts of equal length side by side."""
    start = 0
    for length, same in groupby(lengths):
        left = sum(1 for _ in same)
        most = max(1, _SCORES // (heads * length * length))
        while left:
            texts = min(left, most)
            yield start, texts, length
            start += texts * length
            left -= texts


def _norm(tensor: Callable[[str], Array], name: str) -> _Norm:
    return _Norm(gain=tensor(f"{name}.weight"), bias=tensor(f"{name}.bias"))


def _float32(array: NDArray[np.float64]) -> Array:
    return np.ascontiguousarray(array, dtype=np.float32)
