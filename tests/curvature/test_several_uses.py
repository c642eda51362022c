"""K-FAC's factors of a weight with several uses: recurrence, losses with derivatives in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close

import secondorder as so
from secondorder import layers
from secondorder.curvature import ggn_components, layerwise

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
WIDTH, DIRECTIONS = 5, np.eye(2)
PARAMS = {
    "b": RNG.normal(size=WIDTH),
    "v": RNG.normal(size=WIDTH),
    "w": RNG.normal(size=(2, WIDTH)),
}
POINT = RNG.normal(size=(1, 2))


def moments_of(model, params, eigen=False):
    """The moments of each block, by name, and the frame; for half the sum of squares."""
    f = so.compose(so.losses.half_sum_of_squares(), model)
    curvature = layerwise(f, ggn_components(), eigen=eigen)

    @jax.jit
    def update(params, state):
        return curvature.update(jax.grad(f)(params), state, params, f, 0.1)[1]

    state = update(params, curvature.init(params))
    names = [block.name for block in layers.read(f.model, params).blocks]
    return dict(zip(names, state.averages, strict=True)), state.frame


def joined(uses):
    """``Σ Aᵤ ⊗ Gᵤ`` of pairs of inputs and sensitivities, as one array of four axes."""
    return sum(np.einsum("ni,nj,mk,ml->ikjl", a, a, g, g) / len(a) for a, g in uses)


def assert_partial_traces(moments, uses):
    """Both partial traces of A ⊗ G are those of the sum over the uses."""
    a, g = (np.asarray(factor)[0] for factor in moments.factors)
    exact = joined(uses)
    assert_close(np.trace(g) * a, np.einsum("ikjk->ij", exact))
    assert_close(np.trace(a) * g, np.einsum("ikil->kl", exact))


def test_a_recurrent_weight_has_the_partial_traces_of_its_steps():
    x, w = RNG.normal(size=(6, 3)), RNG.normal(size=(3, 3, 3))  # the last piece has no use

    def run(w, taps):
        hidden = [x]
        for tap in taps:
            hidden.append(jnp.tanh(hidden[-1] @ w[0] + tap))
        return hidden

    taps = [jnp.zeros((6, 3))] * 4
    model = lambda w, taps=taps: jnp.sum(run(w, taps)[-1] @ w[1], axis=1)
    moments, _ = moments_of(model, w)
    (block,) = moments.values()
    *seen, last = run(w, taps)
    sensitivities = jax.grad(lambda taps: jnp.sum(model(w, taps)))(taps)
    a, g = block.factors
    recurrent = block._replace(factors=(a[:1], g[:1]))
    assert_partial_traces(recurrent, list(zip(seen, sensitivities, strict=True)))
    assert_close(a[1], last.T @ last / 6)
    assert not np.any(a[2])


def network(p, x):
    return jnp.tanh(x @ p["w"] + p["b"]) @ p["v"]


def nested_tangents(p, x):
    def second(e):
        slope = lambda y: jax.jvp(lambda z: network(p, z), (y,), (e,))[1]
        return jax.jvp(slope, (x,), (e,))[1]

    return sum(map(second, DIRECTIONS))


def tangents_together(p, x):
    slope = lambda y, e: jax.jvp(lambda z: network(p, z), (y,), (e,))[1]
    second = lambda e: jax.jvp(lambda y: slope(y, e), (x,), (e,))[1]
    return jnp.sum(jax.vmap(second)(DIRECTIONS))


FORMS = {
    "a vmap of nested tangents": lambda p: jax.vmap(lambda x: nested_tangents(p, x))(POINT),
    "tangents under one vmap": lambda p: jax.vmap(lambda x: tangents_together(p, x))(POINT),
    "a vmap of Hessians": lambda p: jax.vmap(
        lambda x: jnp.trace(jax.hessian(lambda x: network(p, x))(x))
    )(POINT),
    "tangents of gradients": lambda p: jax.vmap(
        lambda x: sum(
            jax.jvp(jax.grad(lambda x: network(p, x)), (x,), (e,))[1] @ e for e in DIRECTIONS
        )
    )(POINT),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_laplacian_has_the_partial_traces_of_the_uses_in_its_program(name):
    model = FORMS[name]
    layout = layers.read(model, PARAMS)
    tapped = layers.instrumented(model, PARAMS, layout)
    _, uses = jax.jit(tapped.pull)(jnp.ones(1))
    moments, _ = moments_of(model, PARAMS)
    kernels = 0
    for block, mine in zip(layout.blocks, uses, strict=True):
        if block.kind != "dense":
            assert block.kind == "bias"
            continue
        flat = lambda z: np.asarray(z).reshape(-1, z.shape[-1])
        pairs = [(flat(use.inputs), flat(use.sensitivities)) for use in mine]
        assert_partial_traces(moments[block.name], pairs)
        kernels += 1
    assert kernels == 2


def forward(p, x, rows, taps):
    """The Laplacian, carried forward with value and slopes: each weight is used once for each."""
    w, v = p["w"], p["v"]
    z, *slopes = (a @ w + tap for a, tap in zip((x, *rows), taps, strict=True))
    h = jnp.tanh(z + p["b"])
    bends = sum(s**2 for s in slopes)
    return (-2 * h * (1 - h**2) * bends) @ v


@pytest.mark.parametrize("shared", [True, False])
def test_a_laplacian_carried_forward_has_the_factors_by_hand(shared):
    """Directions of one point: outside the batch, or one for each example; the same factors."""
    rows = DIRECTIONS[:, None] if shared else jnp.repeat(DIRECTIONS[:, None], 3, axis=1)
    points = POINT if shared else np.tile(POINT, (3, 1))
    nothing = [jnp.zeros((1, WIDTH))] * 3
    model = lambda p: forward(p, points, rows, nothing) / len(points) ** 0.5
    moments, _ = moments_of(model, PARAMS)
    laplacian = lambda taps: forward(PARAMS, POINT, DIRECTIONS[:, None], taps)[0]
    pairs = zip((POINT, *DIRECTIONS[:, None]), jax.grad(laplacian)(nothing), strict=True)
    assert_partial_traces(moments["['w']"], list(pairs))


def test_ekfac_sums_the_squares_of_all_uses_in_its_bases():
    model = FORMS["a vmap of nested tangents"]
    layout = layers.read(model, PARAMS)
    _, uses = layers.instrumented(model, PARAMS, layout).pull(jnp.ones(1))
    moments, frame = moments_of(model, PARAMS, eigen=True)
    for block, mine, (q, r) in zip(layout.blocks, uses, frame, strict=True):
        if block.kind == "dense":
            turned = lambda z, basis: np.asarray(z).reshape(-1, z.shape[-1]) @ np.asarray(basis[0])
            expected = sum(
                (turned(u.inputs, q) ** 2).T @ turned(u.sensitivities, r) ** 2 for u in mine
            )
            assert_close(moments[block.name].squares[0], expected, c=1e4)
