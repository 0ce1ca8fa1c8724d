"""The encoder against its own definition in float64, on a small model with random weights."""

import math

import numpy as np
import pytest

from octollm.memory.embed.bert import Bert, Shape
from octollm.memory.embed.gelu import SCALE, ScaledGelu

SHAPE = Shape(hidden=24, inner=40, heads=3, layers=2, epsilon=1e-12)
PART = "attention.self"


def weights(rng, strength=0.5):
    sizes = {
        "word_embeddings.weight": (50, 24),
        "position_embeddings.weight": (32, 24),
        "token_type_embeddings.weight": (2, 24),
    }
    made = {f"embeddings.{name}": rng.standard_normal(size) for name, size in sizes.items()}
    norms = ["embeddings.LayerNorm"]
    for layer in range(SHAPE.layers):
        at = f"encoder.layer.{layer}"
        norms += [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
        shapes = {f"{PART}.{name}": (24, 24) for name in ("query", "key", "value")}
        shapes |= {"attention.output.dense": (24, 24), "intermediate.dense": (40, 24), "output.dense": (24, 40)}
        for name, size in shapes.items():
            made[f"{at}.{name}.weight"] = rng.standard_normal(size) * strength
            made[f"{at}.{name}.bias"] = rng.standard_normal(size[0])
    for name in norms:
        made[f"{name}.weight"] = 1 + 0.1 * rng.standard_normal(24)
        made[f"{name}.bias"] = 0.1 * rng.standard_normal(24)
    return {name: array.astype(np.float32) for name, array in made.items()}


def by_definition(w, ids):
    w = {name: array.astype(np.float64) for name, array in w.items()}

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + SHAPE.epsilon) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(SHAPE.layers):
        at = f"encoder.layer.{layer}"
        query, key, value = (
            dense(x, f"{at}.{PART}.{name}").reshape(len(ids), 3, 8).transpose(1, 0, 2)
            for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(8)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        context = (scores / scores.sum(-1, keepdims=True) @ value).transpose(1, 0, 2).reshape(len(ids), 24)
        x = norm(x + dense(context, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        inner = dense(x, f"{at}.intermediate.dense")
        inner *= np.vectorize(lambda v: 0.5 * (1 + math.erf(v / math.sqrt(2))))(inner)
        x = norm(x + dense(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    pooled = x.mean(0)
    return pooled / np.linalg.norm(pooled)


@pytest.mark.parametrize("strength", [0.3, 5.0], ids=["usual", "scores beyond fp32's exp"])
def test_texts_laid_side_by_side_equal_the_definition(strength):
    rng = np.random.default_rng(7)
    w = weights(rng, strength)
    texts = [rng.integers(0, 50, length).tolist() for length in (1, 3, 3, 3, 8, 32, 5)]
    made = Bert(SHAPE, w.__getitem__).encode(texts)
    expected = np.array([by_definition(w, text) for text in texts])
    assert made.dtype == np.float32
    assert (1 - (made * expected).sum(1)).max() < 1e-5


def test_gelu_is_off_by_no_more_than_it_says():
    x = np.concatenate([np.linspace(-12, 12, 96_001), [-1e4, -60, 60, 1e4, 0]]).astype(np.float32)
    exact = np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.astype(np.float64)])
    gelu = ScaledGelu(1)
    scaled = x * np.float32(SCALE)
    gelu.apply(scaled, gelu.tiled(np.zeros(1, dtype=np.float32)))
    assert np.abs(scaled / SCALE - exact)[:-5].max() < 4e-6
    assert scaled[-5:] / SCALE == pytest.approx(exact[-5:], rel=1e-6)


def test_gelu_adds_the_bias_of_each_column_in_every_tile():
    rng = np.random.default_rng(1)
    rows, bias = rng.standard_normal((5000, 40)).astype(np.float32), rng.standard_normal(40).astype(np.float32)
    gelu = ScaledGelu(40)
    at_once, alone = rows.copy(), (rows + bias).reshape(-1, 1)
    gelu.apply(at_once, gelu.tiled(bias))
    ScaledGelu(1).apply(alone, ScaledGelu(1).tiled(np.zeros(1, dtype=np.float32)))
    assert at_once.reshape(-1) == pytest.approx(alone.reshape(-1), abs=1e-6)
