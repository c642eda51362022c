"""Flax Linen, Flax NNX, Equinox and Haiku: one mechanism reads the layers of them all."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from layer_models import TOKENS, check, described

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)


def linen(module: nn.Module, *inputs):
    state = dict(jax.jit(module.init)(KEY, *inputs))
    params = state.pop("params")
    apply = lambda p: module.apply({"params": p, **state}, *inputs, mutable=list(state))
    return lambda p: apply(p)[0], params


def haiku(fn, *inputs):
    pair = hk.transform_with_state(fn)
    params, state = jax.jit(pair.init)(KEY, *inputs)
    return lambda p: pair.apply(p, state, None, *inputs)[0], params


def equinox(module, *inputs):
    params, rest = eqx.partition(module, eqx.is_inexact_array)
    return lambda p: jax.vmap(eqx.combine(p, rest))(*inputs), params


def flax_nnx(module: nnx.Module, *inputs):
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    rest = jax.tree.map(jnp.copy, rest)  # split aliases the live variables
    return lambda p: nnx.merge(graph, p, rest, copy=True)(*inputs), params


# ------------------------------------------------------------------------------ images, four times


class LinenImages(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.GroupNorm(2)(nn.Conv(4, (3, 3))(x)))
        x = nn.Conv(4, (3, 3), strides=2, feature_group_count=2)(x)
        x = nn.BatchNorm(use_running_average=False)(x)
        x = nn.PReLU()(nn.Dropout(0.5, deterministic=True)(x))
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


def haiku_images(x):
    x = jax.nn.relu(hk.BatchNorm(True, True, 0.9)(hk.Conv2D(4, 3)(x), True))
    x = hk.LayerNorm(-1, True, True)(hk.Conv2D(4, 3, stride=2)(x))
    return hk.nets.MLP([5, 3])(hk.Flatten()(x))


class EquinoxImages(eqx.Module):
    convolution: eqx.nn.Conv2d
    norm: eqx.nn.GroupNorm
    linear: eqx.nn.Linear

    def __init__(self):
        self.convolution = eqx.nn.Conv2d(3, 4, 3, padding=1, key=KEY)
        self.norm = eqx.nn.GroupNorm(2, 4)
        self.linear = eqx.nn.Linear(64, 3, key=KEY)

    def __call__(self, x):
        x = jax.nn.relu(self.norm(self.convolution(jnp.moveaxis(x, -1, 0))))
        return self.linear(x.reshape(-1))


class NnxImages(nnx.Module):
    def __init__(self, rngs):
        self.convolution = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, use_running_average=False, rngs=rngs)
        self.linear = nnx.Linear(64, 3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, deterministic=True)

    def __call__(self, x):
        x = self.dropout(nnx.relu(self.norm(self.convolution(x))))
        return self.linear(x.reshape(x.shape[0], -1))


# --------------------------------------------------------------------------- sequences, four times


class LinenLayer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
        return x + nn.Dense(4)(nn.gelu(nn.Dense(8)(nn.RMSNorm()(x)))), None


class LinenTransformer(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(6, 4)
        x = embed(tokens) + self.param("position", nn.initializers.normal(), (3, 4))
        stack = nn.scan(
            nn.remat(LinenLayer), variable_axes={"params": 0}, split_rngs={"params": True}, length=2
        )
        return embed.attend(stack(name="stack")(x, None)[0])


class LinenRecurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.RNN(nn.GRUCell(3))(x)[:, -1])


def haiku_sequences(tokens):
    x = hk.Embed(6, 4)(tokens)
    x = hk.RMSNorm(-1)(hk.MultiHeadAttention(2, 2, w_init=hk.initializers.RandomNormal())(x, x, x))
    cell = hk.LSTM(4)
    x, _ = hk.dynamic_unroll(cell, x, cell.initial_state(2), time_major=False)
    return hk.experimental.layer_stack(2)(lambda h: jnp.tanh(hk.Linear(4)(h)))(x)


class EquinoxSequences(eqx.Module):
    embedding: eqx.nn.Embedding
    attention: eqx.nn.MultiheadAttention
    norm: eqx.nn.LayerNorm
    cell: eqx.nn.GRUCell

    def __init__(self):
        self.embedding = eqx.nn.Embedding(6, 4, key=KEY)
        self.attention = eqx.nn.MultiheadAttention(2, 4, use_query_bias=True, key=KEY)
        self.norm = eqx.nn.LayerNorm(4)
        self.cell = eqx.nn.GRUCell(4, 4, key=KEY)

    def __call__(self, tokens):
        x = jax.vmap(self.embedding)(tokens)
        x = jax.vmap(self.norm)(x + self.attention(x, x, x))
        return jax.lax.scan(lambda h, x: (self.cell(x, h), None), jnp.zeros(4), x)[0]


class NnxSequences(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(6, 4, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)
        self.norm = nnx.RMSNorm(4, rngs=rngs)
        self.out = nnx.LoRALinear(4, 3, lora_rank=2, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens)
        return self.out(self.norm(x + self.attention(x)))


class NnxLayer(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 3, rngs=rngs)
        self.norm = nnx.LayerNorm(3, rngs=rngs)

    def __call__(self, x):
        return x + nnx.tanh(self.linear(self.norm(x)))


class NnxStack(nnx.Module):
    def __init__(self, rngs):
        make = nnx.vmap(NnxLayer, in_axes=(0,))
        self.layers = nnx.split_rngs(splits=2)(make)(rngs)

    def __call__(self, x):  # nnx.scan returns every parameter from every step
        scan = nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return scan(nnx.remat(lambda x, layer: layer(x)))(x, self.layers)


CONV = "convolution 1 28 4: 2 16"
MODELS = {
    "linen images": (
        lambda: linen(LinenImages(), IMAGES),
        {
            f"Conv_0kernel Conv_0bias: {CONV}",
            "GroupNorm_0scale GroupNorm_0bias: scale and shift 1 1 8: 2 1",
            "Conv_1kernel Conv_1bias: convolution 2 19 2: 2 4",
            "BatchNorm_0scale BatchNorm_0bias: scale and shift 1 1 8: 2 1",
            "PReLU_0negative_slope: scale and shift 1 1 1: 2 1",
            "Dense_0kernel Dense_0bias: dense 1 17 3: 2 1",
        },
    ),
    "haiku images": (
        lambda: haiku(haiku_images, IMAGES),
        {
            f"conv2_dw conv2_db: {CONV}",
            "batch_normscale batch_normoffset: scale and shift 1 1 8: 2 1",
            "conv2_d_1w conv2_d_1b: convolution 1 37 4: 2 4",
            "layer_normscale layer_normoffset: scale and shift 1 1 8: 2 1",
            "mlplinear_0w mlplinear_0b: dense 1 17 5: 2 1",
            "mlplinear_1w mlplinear_1b: dense 1 6 3: 2 1",
        },
    ),
    "equinox images": (
        lambda: equinox(EquinoxImages(), IMAGES),
        {
            f"convolutionweight convolutionbias: {CONV}",
            "normweight normbias: scale and shift 1 1 8: 2 1",
            "linearweight linearbias: dense 1 65 3: 2 1",
        },
    ),
    "nnx images": (
        lambda: flax_nnx(NnxImages(nnx.Rngs(0)), IMAGES),
        {
            f"convolutionkernelvalue convolutionbiasvalue: {CONV}",
            "normscalevalue normbiasvalue: scale and shift 1 1 8: 2 1",
            "linearkernelvalue linearbiasvalue: dense 1 65 3: 2 1",
        },
    ),
    "linen transformer": (
        lambda: linen(LinenTransformer(), TOKENS % 6),
        {
            "Embed_0embedding: embedding 1 6 4: 2 3, 2 3 transposed",
            "position: embedding 1 3 4: 2 3",
            "stackLayerNorm_0scale stackLayerNorm_0bias: scale and shift 2 1 8: 2 1",
            "stackRMSNorm_0scale: scale and shift 2 1 4: 2 1",
            "stackDense_0kernel stackDense_0bias: dense 2 9 4: 2 3",
            "stackDense_1kernel stackDense_1bias: dense 2 5 8: 2 3",
            *(
                f"stackMultiHeadDotProductAttention_0{n}kernel "
                f"stackMultiHeadDotProductAttention_0{n}bias: dense 2 5 4: 2 3"
                for n in ("query", "key", "value", "out")
            ),
        },
    ),
    "linen recurrent": (
        lambda: linen(LinenRecurrent(), IMAGES[:, 0]),
        {
            *(f"GRUCell_0{n}kernel GRUCell_0{n}bias: dense 1 4 3: 2 4" for n in ("ir", "iz", "in")),
            *(f"GRUCell_0{n}kernel: dense 1 3 3: 2 4" for n in ("hr", "hz")),
            "GRUCell_0hnkernel GRUCell_0hnbias: dense 1 4 3: 2 4",
            "Dense_0kernel Dense_0bias: dense 1 4 2: 2 1",
        },
    ),
    "haiku sequences": (
        lambda: haiku(haiku_sequences, TOKENS % 6),
        {
            "embedembeddings: embedding 1 6 4: 2 3",
            *(
                f"multi_head_attention{n}w multi_head_attention{n}b: dense 1 5 4: 2 3"
                for n in ("query", "key", "value", "linear")
            ),
            "rms_normscale: scale and shift 1 1 4: 2 1",
            "lstmlinearw lstmlinearb: dense 1 9 16: 2 3",
            "__layer_stack_no_per_layerlinearw __layer_stack_no_per_layerlinearb: dense 2 5 4: 2 3",
        },
    ),
    "equinox sequences": (
        lambda: equinox(EquinoxSequences(), TOKENS % 6),
        {
            "embeddingweight: embedding 1 6 4: 2 3",
            "attentionquery_projweight attentionquery_projbias: dense 1 5 4: 2 3",
            *(f"attention{n}_projweight: dense 1 4 4: 2 3" for n in ("key", "value", "output")),
            "normweight normbias: scale and shift 1 1 8: 2 1",
            "cellweight_ih cellbias: dense 1 5 12: 2 3",
            "cellweight_hh: dense 1 4 12: 2 3",
            "cellbias_n: bias 1 1 4: 2 1",
        },
    ),
    "nnx sequences": (
        lambda: flax_nnx(NnxSequences(nnx.Rngs(0)), TOKENS % 6),
        {
            "embedembeddingvalue: embedding 1 6 4: 2 3",
            *(
                f"attention{n}kernelvalue attention{n}biasvalue: dense 1 5 4: 2 3"
                for n in ("query", "key", "value", "out")
            ),
            "normscalevalue: scale and shift 1 1 4: 2 1",
            "outkernelvalue outbiasvalue: dense 1 5 3: 2 3",
            "outloralora_avalue: dense 1 4 2: 2 3",
            "outloralora_bvalue: dense 1 2 3: 2 3",
        },
    ),
    "nnx stack": (
        lambda: flax_nnx(NnxStack(nnx.Rngs(0)), IMAGES[:, 0]),
        {
            "layerslinearkernelvalue layerslinearbiasvalue: dense 2 4 3: 2 4",
            "layersnormscalevalue layersnormbiasvalue: scale and shift 2 1 6: 2 1",
        },
    ),
}


@pytest.mark.quick(1)
@pytest.mark.parametrize(("build", "blocks"), MODELS.values(), ids=MODELS)
def test_every_layer_is_found(build, blocks):
    model, params = build()
    found = check(model, params, tolerance=2e-5, independent=False)
    assert described(found.layout, found.statistics) == blocks
