"""Models of every kind of layer, what their blocks are, and what the statistics must sum to."""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tolerances import rounding

import secondorder as so
from secondorder import layers

lax = jax.lax


class Case(NamedTuple):
    """A model, its parameters and its blocks: ``"leaves: kind S a b: N T, …"``, N and T per use."""

    model: Callable[[Any], Any]
    params: Any
    blocks: tuple[str, ...]
    independent: bool = True  # whether no example sees another


class Found(NamedTuple):
    """What :func:`check` has seen."""

    layout: layers.Layout
    outputs: Any
    grads: Any
    statistics: Any


def draw(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) / 2)


def described(layout: layers.Layout, statistics: Any) -> set[str]:
    """The blocks as :class:`Case` writes them."""
    lines = set()
    for block, uses in zip(layout.blocks, statistics, strict=True):
        leaves = " ".join(re.sub(r"\W+", "", layout.paths[i]) for i in block.leaves)
        line = f"{leaves}: {block.kind} {' '.join(map(str, block.shape))}"
        sizes = []
        for use in uses:
            _, n, t, _ = use.sensitivities.shape
            sizes.append(f"{n} {t}" + (" transposed" if use.transposed else ""))
        lines.add(": ".join([line, ", ".join(sizes)]) if sizes else line)
    return lines


def summed(block: layers.Block, uses: Any) -> np.ndarray:
    """``Σ_uses Σₙₜ inputs ⊗ sensitivities``, look-ups written out as unit vectors."""
    total = np.zeros(block.shape)
    for use in uses:
        inputs = use.inputs
        if use.indices is not None:
            assert use.indices.shape == use.sensitivities.shape[:3]
            assert np.all((use.indices >= 0) & (use.indices < block.shape[1]))
            inputs = np.eye(block.shape[1])[np.asarray(use.indices)]
        s = np.asarray(use.sensitivities, np.float64)
        total += np.einsum("snta,sntb->sab", np.asarray(inputs, np.float64), s)
    return total


def cut_to_the_first_example(use: layers.Use) -> layers.Use:
    return jax.tree.map(lambda x: x[:, :1], use)


def check(
    model: Callable, params: Any, tolerance: float = rounding(10), independent: bool = True
) -> Found:
    """Holds the outputs, the gradients and the statistics against the model itself.

    With ``independent`` examples, also the part of the first one against its own gradient.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    layout = layers.read(model, shapes)
    assert hash(layout) == hash(layers.read(model, params)), "the layout is not static"

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def run(params):
        outputs, pull = jax.vjp(model, params)
        leaves, tree = jax.tree.flatten(outputs)
        weights = [jnp.cos(jnp.arange(x.size) + i) for i, x in enumerate(leaves)]
        cotangent = [
            w.reshape(x.shape).astype(x.dtype) for w, x in zip(weights, leaves, strict=True)
        ]
        cotangent = jax.tree.unflatten(tree, cotangent)
        first = lambda x: x.at[1:].set(0) if x.ndim else x
        tapped = layers.instrumented(model, params, layout)
        alone = pull(jax.tree.map(first, cotangent))[0] if independent else None
        return outputs, pull(cotangent)[0], alone, tapped.outputs, tapped.pull(cotangent)

    outputs, expected, alone, again, (grads, statistics) = run(params)
    for a, b in zip(
        jax.tree.leaves((outputs, expected)), jax.tree.leaves((again, grads)), strict=True
    ):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), tolerance, tolerance)
    leaves = jax.tree.leaves(grads)
    assert sorted(i for block in layout.blocks for i in block.leaves) == list(range(len(leaves)))
    for block, uses in zip(layout.blocks, statistics, strict=True):
        mine = [np.asarray(leaves[i], np.float64) for i in block.leaves]
        joined = np.asarray(block.join(mine))
        assert joined.shape == block.shape
        for leaf, back in zip(mine, block.split(joined), strict=True):
            np.testing.assert_array_equal(leaf, back)
        if block.kind == "fallback":
            assert uses == () and block.reason.endswith(".")
        else:
            np.testing.assert_allclose(summed(block, uses), joined, tolerance, tolerance)
            if independent and "not known" not in block.reason:
                first = [cut_to_the_first_example(use) for use in uses]
                its = block.join([np.asarray(jax.tree.leaves(alone)[i]) for i in block.leaves])
                np.testing.assert_allclose(summed(block, first), its, tolerance, tolerance)
            assert all(
                jnp.promote_types(x.dtype, jnp.float32) == x.dtype
                for use in uses
                for x in (use.inputs, use.sensitivities)
                if x is not None
            )
    return Found(layout, outputs, grads, statistics)


# ------------------------------------------------------------------------------------- the models

X = np.random.default_rng(0).normal(size=(5, 3))  # five examples
SEQUENCES = np.random.default_rng(1).normal(size=(2, 4, 3))  # two examples of four positions
TOKENS = np.array([[0, 3, 2], [1, 1, -2]])


def affine(*shape: int, seed: int = 0) -> dict:
    return {"w": draw(seed, *shape), "b": draw(seed + 1, shape[-1])}


def mlp() -> Case:
    def model(p):
        h = jax.nn.relu(X @ p["w"] + p["b"])
        return jnp.tanh(h @ p["v"].T) @ p["u"]

    params = affine(3, 4) | {"v": draw(2, 2, 4), "u": draw(3, 2, 3)}
    return Case(
        model, params, ("w b: dense 1 4 4: 5 1", "v: dense 1 4 2: 5 1", "u: dense 1 2 3: 5 1")
    )


def mapped_matrix_vector() -> Case:
    def single(p, x):
        return jax.nn.gelu(p["w"] @ x + p["b"])

    params = {"w": draw(0, 4, 3), "b": draw(1, 4)}
    model = so.per_example(so.squared_error(jnp.zeros((5, 4))), single, X).model
    return Case(model, params, ("w b: dense 1 4 4: 5 1",))


def linear_regression() -> Case:
    params = {"w": draw(0, 3), "b": draw(1)}
    return Case(lambda p: X @ p["w"] + p["b"], params, ("w b: dense 1 4 1: 5 1",))


def one_example_without_an_axis() -> Case:
    def model(p):
        return p["v"] @ jnp.tanh((p["w"] @ X[0]) * p["g"] + p["b"])

    params = affine(4, 3) | {"b": draw(2, 4), "g": draw(3, 4), "v": draw(4, 4)}
    blocks = ("w: dense 1 3 4: 1 1", "g b: scale and shift 1 1 8: 1 1", "v: dense 1 4 1: 1 1")
    return Case(model, params, blocks)


def attention() -> Case:
    def model(p):
        q, k, v = (jnp.einsum("btd,dhe->bthe", SEQUENCES, p[n]) + p[f"b{n}"] for n in "qkv")
        weights = jax.nn.softmax(jnp.einsum("bqhe,bkhe->bhqk", q, k))
        mixed = jnp.einsum("bhqk,bkhe->bqhe", weights, v)
        return SEQUENCES + jnp.einsum("bqhe,hed->bqd", mixed, p["o"])

    params = {n: draw(i, 3, 2, 2) for i, n in enumerate("qkv")} | {"o": draw(3, 2, 2, 3)}
    params |= {f"b{n}": draw(4 + i, 2, 2) for i, n in enumerate("qkv")}
    blocks = tuple(f"{n} b{n}: dense 1 4 4: 2 4" for n in "qkv")
    return Case(model, params, (*blocks, "o: dense 1 4 3: 2 4"))


def mixing_of_tokens() -> Case:
    def model(p):
        h = jnp.swapaxes(SEQUENCES, 1, 2) @ p["t"] + p["b"]
        return jnp.tanh(jnp.swapaxes(h, 1, 2) @ p["c"]).mean(1)

    params = {"t": draw(0, 4, 4), "b": draw(1, 4), "c": draw(2, 3, 2)}
    return Case(model, params, ("t b: dense 1 5 4: 2 3", "c: dense 1 3 2: 2 4"))


def flattened_positions() -> Case:
    def model(p):
        h = jnp.tanh(SEQUENCES.reshape(8, 3) @ p["w"] + p["b"])
        return h.reshape(2, 8) @ p["v"]

    params = affine(3, 2) | {"v": draw(2, 8, 3)}
    return Case(model, params, ("w b: dense 1 4 2: 2 4", "v: dense 1 8 3: 2 1"))


def flattened_outputs() -> Case:
    def model(p):
        return jnp.tanh(SEQUENCES @ p["w"] + p["b"]).reshape(8, 2) @ p["v"]

    params = affine(3, 2) | {"v": draw(2, 2, 3)}
    return Case(model, params, ("w b: dense 1 4 2: 8 1", "v: dense 1 2 3: 8 1"))


def convolution(rank: int, groups: int = 1, **options: Any) -> Case:
    shape, kernel = (6, 5, 4)[:rank], (3, 2, 2)[:rank]
    names = "DHW"[-rank:]
    image = draw(0, 2, *shape, 4)
    numbers = (f"N{names}C", f"{names}IO", f"N{names}C")
    settings: dict = {"window_strides": (1,) * rank, "padding": "SAME"} | options

    def model(p):
        h = lax.conv_general_dilated(
            image, p["w"], dimension_numbers=numbers, feature_group_count=groups, **settings
        )
        return jnp.tanh(h + p["b"])

    params = affine(*kernel, 4 // groups, 6)
    positions = int(np.prod(jax.eval_shape(model, params).shape[1:-1]))
    inputs = int(np.prod(kernel)) * 4 // groups + 1
    block = f"w b: convolution {groups} {inputs} {6 // groups}: 2 {positions}"
    return Case(model, params, (block,))


def mapped_convolution() -> Case:
    def single(p, image):  # the layout of Equinox and PyTorch
        return lax.conv_general_dilated(image[None], p["w"], (1, 1), "VALID")[0] + p["b"]

    images = draw(0, 2, 3, 4, 4)
    params = {"w": draw(1, 5, 3, 2, 2), "b": draw(2, 5, 1, 1)}
    model = lambda p: jax.vmap(lambda image: single(p, image))(images)
    return Case(model, params, ("w b: convolution 1 13 5: 2 9",))


def convolution_transpose() -> Case:
    image = draw(0, 2, 3, 3, 2)
    model = lambda p: lax.conv_transpose(image, p["w"], (2, 2), "SAME") + p["b"]
    return Case(model, affine(3, 3, 2, 4), ("w b: convolution 1 19 4: 2 36",))


def take() -> Case:
    model = lambda p: jnp.take(p["e"], TOKENS, axis=0) @ p["w"]
    params = {"e": draw(0, 6, 4), "w": draw(1, 4, 2)}
    return Case(model, params, ("e: embedding 1 6 4: 2 3", "w: dense 1 4 2: 2 3"))


def indexing() -> Case:
    model = lambda p: jax.vmap(lambda i: jnp.tanh(p["e"][i]))(TOKENS)
    return Case(model, {"e": draw(0, 6, 4)}, ("e: embedding 1 6 4: 2 3",))


def rows_that_do_not_exist() -> Case:
    ids = np.array([[0, 30, 2], [1, 1, 4]])

    def model(p):
        return p["e"].at[ids].get(mode="fill", fill_value=0) + p["f"].at[ids].get(mode="clip")

    params = {"e": draw(0, 6, 4), "f": draw(1, 6, 4)}
    return Case(model, params, ("e: embedding 1 6 4: 2 3", "f: embedding 1 6 4: 2 3"))


def one_hot() -> Case:
    model = lambda p: jax.nn.one_hot(TOKENS, 6) @ p["e"]  # of class -2 there is none
    return Case(model, {"e": draw(0, 6, 4)}, ("e: embedding 1 6 4: 2 3",))


def tied_embedding() -> Case:
    def model(p):
        h = jnp.tanh(p["e"][TOKENS] + p["position"])
        return h @ p["e"].T + p["b"]

    params = {"e": draw(0, 6, 4), "position": draw(1, 3, 4), "b": draw(2, 6)}
    tied = "e: embedding 1 6 4: 2 3, 2 3 transposed"
    return Case(model, params, (tied, "position: embedding 1 3 4: 2 3", "b: bias 1 1 6: 2 1"))


def positions_by_number() -> Case:
    def model(p):
        rows = jnp.take(p["position"], np.arange(3), axis=0)
        h = jnp.tanh(p["e"][TOKENS] + rows)
        back = lax.scan(lambda h, w: (h + (w / 2)[np.array([2, 0, 2])], None), h, p["stack"])[0]
        return back @ p["e"].T + p["alone"][np.arange(2)][0, 0]

    params = {"e": draw(0, 6, 4), "position": draw(1, 5, 4), "stack": draw(2, 2, 3, 4)}
    params |= {"alone": draw(3, 2, 2)}
    blocks = (
        "e: embedding 1 6 4: 2 3, 2 3 transposed",
        "position: embedding 1 5 4: 2 3",
        "stack: embedding 2 3 4: 2 3",
        "alone: embedding 1 2 2: 2 1",  # not known: its two rows
    )
    return Case(model, params, blocks)


def normalisation(form: str) -> Case:
    def model(p):
        h = SEQUENCES @ p["w"]
        axes = (0, 1) if form == "batch" else -1
        centre, root = h.mean(axes, keepdims=True), lax.rsqrt(h.var(axes, keepdims=True) + 1e-5)
        if form == "layer":
            return (h - centre) * root * p["g"] + p["s"]
        return (h - centre) * (root * p["g"]) + p["s"]  # of a batch, γ meets the examples later

    params = {"w": draw(0, 3, 4), "g": draw(1, 4), "s": draw(2, 4)}
    blocks = ("w: dense 1 3 4: 2 4", "g s: scale and shift 1 1 8: 2 1")
    return Case(model, params, blocks, independent=form != "batch")


def root_mean_square_normalisation() -> Case:
    def model(p):
        h = SEQUENCES * lax.rsqrt(jnp.mean(SEQUENCES**2, -1, keepdims=True))
        return h * (1 + p["g"]) / 2 * p["scalar"]

    params = {"g": draw(0, 3), "scalar": draw(1)}
    blocks = ("g: scale and shift 1 1 3: 2 1", "scalar: scale and shift 1 1 1: 2 1")
    return Case(model, params, blocks)


def factors_on_the_way() -> Case:
    def model(p):
        h = X @ (p["w"] / 3 * 2) + (-p["b"]) * 3 - p["c"]
        layer = lambda h, q: (h @ (3 * q["u"]) + q["d"], None)
        return lax.scan(layer, h, {"u": p["u"], "d": p["d"]})[0]

    params = affine(3, 4) | {"c": draw(2, 4), "u": draw(3, 2, 4, 4), "d": draw(4, 2, 4)}
    blocks = ("w: dense 1 3 4: 5 1", "b: bias 1 1 4: 5 1", "c: bias 1 1 4: 5 1")
    blocks += ("u d: dense 2 5 4: 5 1",)
    return Case(model, params, blocks)


def factors_from_elsewhere() -> Case:
    def model(p):
        x = lax.while_loop(lambda x: jnp.sum(x) > 1, lambda x: x / 2, X)
        h = x @ (p["w"] * jnp.exp(jnp.sum(x)) / 100) + p["g"] / (1 + X @ X.T[:, :4] ** 2)
        frozen = lax.stop_gradient(p["u"]) + jnp.ones((4, 2))
        h = h @ (frozen - p["u"])
        return h @ p["v"]

    params = {"w": draw(0, 3, 4), "g": draw(1, 4), "u": draw(2, 4, 2), "v": draw(3, 2)}
    blocks = ("w: dense 1 3 4: 5 1", "g: scale and shift 1 1 4: 5 1")
    return Case(model, params, (*blocks, "u: dense 1 4 2: 5 1", "v: dense 1 2 1: 5 1"))


def a_product_that_goes_two_ways_inside() -> Case:
    inner = jax.jit(lambda y, b: jnp.tanh((y + b) * y))
    model = lambda p: inner(X @ p["w"], p["b"]) @ lax.optimization_barrier(p["v"])
    params = affine(3, 4) | {"v": draw(2, 4, 2)}
    blocks = ("w: dense 1 3 4: 5 1", "b: bias 1 1 4: 5 1", "v: dense 1 4 2: 5 1")
    return Case(model, params, blocks)


def stacked_layers(remat: bool = False) -> Case:
    def layer(h, p):
        return h + jnp.tanh((h * p["g"] + p["s"]) @ p["w"] + p["b"]), None

    def model(p):
        return lax.scan(jax.checkpoint(layer) if remat else layer, X, p)[0]

    params = {"w": draw(0, 4, 3, 3), "b": draw(1, 4, 3), "g": draw(2, 4, 3), "s": draw(3, 4, 3)}
    return Case(model, params, ("w b: dense 4 4 3: 5 1", "g s: scale and shift 4 1 6: 5 1"))


def stacked_layers_unrolled() -> Case:
    def model(p):
        h = X
        for i in (0, 1, 3):  # the third is not used
            q = jax.tree.map(lambda leaf: leaf[i], p)  # noqa: B023
            h = h + jnp.tanh((h * q["g"] + q["s"]) @ q["w"] + q["b"])
        return h

    params = {"w": draw(0, 4, 3, 3), "b": draw(1, 4, 3), "g": draw(2, 4, 3), "s": draw(3, 4, 3)}
    return Case(model, params, ("w b: dense 4 4 3: 5 1", "g s: scale and shift 4 1 6: 5 1"))


def equal_pieces() -> Case:
    def model(p):
        halves = jnp.split(p["w"], 2, axis=1)
        biases = p["b"][:2], p["b"][2:]
        q, k = (SEQUENCES @ w + b for w, b in zip(halves, biases, strict=True))
        weights = jax.nn.softmax(q @ jnp.swapaxes(k, 1, 2))
        rows = p["e"][:4][TOKENS % 4] + p["e"][4:][TOKENS % 4]
        mixed = weights[:, :3, :3] @ rows
        return mixed @ lax.dynamic_slice(p["u"], (2, 0), (2, 2))

    params = affine(3, 4) | {"e": draw(2, 8, 2), "u": draw(3, 4, 2)}
    pieces = ("w b: dense 2 4 2: 2 4", "e: embedding 2 4 2: 2 3", "u: dense 2 2 2: 2 3")
    return Case(model, params, pieces)


def rematerialised() -> Case:
    hidden = jax.checkpoint(lambda p, h: jnp.tanh(h @ p["w"] + p["b"]))
    model = lambda p: jax.jit(hidden)(p, X) @ p["v"]
    params = affine(3, 4) | {"v": draw(2, 4, 2)}
    return Case(model, params, ("w b: dense 1 4 4: 5 1", "v: dense 1 4 2: 5 1"))


def recurrent() -> Case:
    def model(p):
        def step(h, x):
            h = jnp.tanh(x @ p["u"] + p["b"] + h @ p["w"])
            return h, h @ p["o"]

        over = jnp.swapaxes(SEQUENCES, 0, 1)
        return jnp.swapaxes(lax.scan(step, jnp.zeros((2, 4)), over)[1], 0, 1)

    params = affine(4, 4) | {"u": draw(2, 3, 4), "o": draw(3, 4, 2)}
    return Case(
        model, params, ("u b: dense 1 4 4: 2 4", "w: dense 1 4 4: 2 4", "o: dense 1 4 2: 2 4")
    )


def stacked_recurrent() -> Case:
    def model(p):
        def layer(xs, q):
            def step(h, x):
                h = jnp.tanh(x @ q["u"] + q["b"] + h @ q["w"])
                return h, h

            return lax.scan(step, jnp.zeros((2, 3)), xs, reverse=True)[1], None

        return lax.scan(layer, jnp.swapaxes(SEQUENCES, 0, 1), p)[0][0]

    params = {"w": draw(0, 2, 3, 3), "u": draw(1, 2, 3, 3), "b": draw(2, 2, 3)}
    return Case(model, params, ("u b: dense 2 4 3: 2 4", "w: dense 2 3 3: 2 4"))


def carried_and_returned() -> Case:
    def model(p):
        def layer(carry, w):
            h, b = carry  # which goes from step to step as it is
            return (jnp.tanh(h @ w + b), b), (w, b)

        (h, b), (ws, bs) = lax.scan(layer, (X, p["b"]), p["w"])
        return lax.scan(layer, (h, b + 0 * bs[0]), ws)[0][0] @ p["v"]

    params = {"w": draw(0, 2, 3, 3), "b": draw(1, 3), "v": draw(2, 3, 2)}
    blocks = ("w: dense 2 3 3: 5 1, 5 1", "b: fallback 1 1 3", "v: dense 1 3 2: 5 1")
    return Case(model, params, blocks)


def carried() -> Case:
    def model(p):
        layer = lambda carry, w: ((jnp.tanh(carry[0] @ w + carry[1]), carry[1]), None)
        return lax.scan(layer, (X, p["b"]), p["w"])[0][0]

    params = {"w": draw(0, 2, 3, 3), "b": draw(1, 3)}
    return Case(model, params, ("w: dense 2 3 3: 5 1", "b: bias 1 1 3: 5 1"))


def mapped_one_by_one() -> Case:
    model = lambda p: lax.map(lambda x: jnp.tanh(p["w"] @ x + p["b"]), X)
    params = {"w": draw(0, 4, 3), "b": draw(1, 4)}
    return Case(model, params, ("w b: dense 1 4 4: 5 1",))


def rule_of_its_own() -> Case:
    @jax.custom_vjp
    def twice(x):
        return 2 * x

    twice.defvjp(lambda x: (2 * x, x), lambda x, t: (3 * t * x,))

    @jax.custom_jvp
    def times(w, x):
        return x @ w

    times.defjvp(lambda xs, ts: (times(*xs), 2 * (xs[1] @ ts[0] + ts[1] @ xs[0])))

    def model(p):
        return times(p["v"], twice(jax.nn.silu(X @ p["w"] + p["b"])))

    params = affine(3, 4) | {"v": draw(2, 4, 2)}
    return Case(model, params, ("w b: dense 1 4 4: 5 1", "v: fallback 1 1 8"))


def used_twice() -> Case:
    def model(p):
        h = jnp.tanh(X @ p["w"] + p["b"])
        return jnp.tanh(h @ p["w"] + p["b"]) @ p["v"].T @ p["v"]

    params = affine(3, 3) | {"v": draw(2, 3, 3)}
    return Case(
        model, params, ("w b: dense 1 4 3: 5 1, 5 1", "v: dense 1 3 3: 5 1, 5 1 transposed")
    )


def biases_of_two_minds() -> Case:
    def model(p):
        shared = jnp.tanh(X @ p["w"] + p["b"]) @ p["v"] + p["b"]
        y = X @ p["u"]
        return shared, (y + p["c"]) * y  # the product goes elsewhere too

    params = affine(3, 4) | {"v": draw(2, 4, 4), "u": draw(3, 3, 2), "c": draw(4, 2)}
    blocks = ("w: dense 1 3 4: 5 1", "v: dense 1 4 4: 5 1", "u: dense 1 3 2: 5 1")
    return Case(model, params, (*blocks, "b: bias 1 1 4: 5 1", "c: bias 1 1 2: 5 1"))


def ensemble() -> Case:
    def member(p, x):
        return jnp.tanh(x @ p["w"] + p["b"]) @ p["v"]

    model = lambda p: jax.vmap(member, in_axes=(0, None), out_axes=1)(p, X)
    params = {"w": draw(0, 2, 3, 4), "b": draw(1, 2, 4), "v": draw(2, 2, 4, 3)}
    return Case(model, params, ("w b: dense 1 4 8: 5 1", "v: dense 2 4 3: 5 1"))


def ensemble_of_convolutions() -> Case:
    def member(p, image):
        h = lax.conv_general_dilated(image, p["w"], (1,), "SAME")
        return lax.conv_general_dilated(jnp.tanh(h), p["v"], (1,), "SAME") + p["b"]

    image = draw(0, 2, 3, 5)
    model = lambda p: jax.vmap(member, in_axes=(0, None), out_axes=1)(p, image)
    params = {"w": draw(1, 2, 4, 3, 3), "v": draw(2, 2, 3, 4, 3), "b": draw(3, 2, 3, 1)}
    blocks = ("w: convolution 1 9 8: 2 5", "v b: convolution 2 13 3: 2 5")
    return Case(model, params, blocks)


def not_understood() -> Case:
    def model(p):
        h = X @ p["squared"] ** 2 + jnp.tanh(X @ p["both"]) @ jnp.sin(p["both"])
        h = h @ (p["left"] @ p["right"]) * jnp.exp(p["log"]) / p["divisor"]
        h = lax.cond(jnp.sum(h) > 0, lambda h: h @ p["branch"], lambda h: h, h)
        h = lax.fori_loop(
            0, 2, lambda i, h: h @ lax.dynamic_index_in_dim(p["loop"], i, 0, False), h
        )
        h = h + X @ p["pieces"][:, :3] + X @ p["pieces"][:, 1:]
        return h + X @ lax.stop_gradient(p["stopped"]) + X @ (p["masked"] * jnp.eye(3)), p[
            "returned"
        ]

    names = "squared both left right branch stopped masked".split()
    params = {n: draw(i, 3, 3) for i, n in enumerate(names)}
    params |= {"log": draw(7, 3), "divisor": draw(8, 3), "loop": draw(9, 2, 3, 3)}
    params |= {"dead": draw(10, 2), "returned": draw(11, 5), "pieces": draw(12, 3, 4)}
    sizes = {k: int(np.size(v)) for k, v in params.items()}
    return Case(model, params, tuple(f"{k}: fallback 1 1 {n}" for k, n in sizes.items()))


CASES: dict[str, Callable[[], Case]] = {
    f.__name__.replace("_", " "): f
    for f in (
        mlp,
        mapped_matrix_vector,
        linear_regression,
        one_example_without_an_axis,
        attention,
        mixing_of_tokens,
        flattened_positions,
        flattened_outputs,
        mapped_convolution,
        convolution_transpose,
        take,
        indexing,
        rows_that_do_not_exist,
        one_hot,
        tied_embedding,
        positions_by_number,
        root_mean_square_normalisation,
        factors_on_the_way,
        factors_from_elsewhere,
        a_product_that_goes_two_ways_inside,
        stacked_layers,
        stacked_layers_unrolled,
        equal_pieces,
        rematerialised,
        recurrent,
        stacked_recurrent,
        carried,
        carried_and_returned,
        mapped_one_by_one,
        rule_of_its_own,
        used_twice,
        biases_of_two_minds,
        ensemble,
        ensemble_of_convolutions,
        not_understood,
    )
} | {
    "stacked layers, rematerialised": lambda: stacked_layers(remat=True),
    "layer normalisation": lambda: normalisation("layer"),
    "batch normalisation": lambda: normalisation("batch"),
    "convolution in one dimension": lambda: convolution(1),
    "convolution with strides": lambda: convolution(
        2, window_strides=(2, 1), padding=((1, 2), (0, -1))
    ),
    "convolution in three dimensions, dilated": lambda: convolution(
        3, rhs_dilation=(2, 1, 1), padding="VALID"
    ),
    "convolution in groups": lambda: convolution(2, groups=2),
    "convolution of a dilated image": lambda: convolution(
        2, groups=2, lhs_dilation=(2, 3), padding=((1, 0), (0, 2))
    ),
}
