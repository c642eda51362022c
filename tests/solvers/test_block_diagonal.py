"""Each layer's own system against the dense diagonal blocks, and the prox-linear step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from tolerances import assert_close

import secondorder as so
from secondorder import curvature, solvers
from secondorder.operators import BlockDiagonal, by_leaf, by_module
from secondorder.operators._dense import ravel
from secondorder.solvers import Stop

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(9, 4)), RNG.normal(size=(9, 2))
LABELS = RNG.integers(0, 2, 9)
DAMPING = 0.03


def start():
    draw = lambda *shape: np.random.default_rng(1).normal(size=shape)
    first = {"b": draw(3), "w": draw(4, 3)}
    return {"first": first, "gain": jnp.asarray(0.7), "last": {"b": draw(2), "w": draw(3, 2)}}


def outputs(p, x=X):
    hidden = jnp.tanh(x @ p["first"]["w"] + p["first"]["b"])
    return p["gain"] * hidden @ p["last"]["w"] + p["last"]["b"]


SQUARES = so.compose(so.squared_error(Y), outputs)
CLASSES = so.compose(so.softmax_cross_entropy(LABELS), outputs)


def chunks():
    of = lambda b: so.compose(so.squared_error(b["y"]), lambda p: outputs(p, b["x"]))
    return so.chunked(of, {"x": X, "y": Y}, 3)


LAYERS = ([0, 1], [2], [3, 4])  # leaves in the order of the tree


def slope_of(f, p):
    """The gradient as a vector."""
    return np.asarray(jax.jit(lambda p: ravel(jax.grad(f)(p)))(p))


def dense_blocks(f, p, layers=LAYERS):
    """The Gauss-Newton matrix, and that with all between the layers struck out."""
    whole = np.array(jax.jit(lambda p: so.dense(so.ggn(f, p), p))(p))
    owner = np.concatenate(
        [
            np.full(np.size(leaf), next(k for k, own in enumerate(layers) if i in own))
            for i, leaf in enumerate(jax.tree.leaves(p))
        ]
    )
    return whole, np.where(owner[:, None] == owner, whole, 0)


def solve(solver, f, p, layer_of=by_module, damping=DAMPING):
    """One compiled solve with the layers' blocks, beside the whole matrix."""
    model = curvature.preconditioned(so.exact(so.ggn), curvature.block_diagonal(layer_of=layer_of))

    @jax.jit
    def step(p):
        g, scale = jax.grad(f)(p), jnp.asarray(damping, so.tree.dtype(p))
        op, _ = model.at(g, model.init(p), p, f, scale)
        return solver.update(so.Quadratic(g, op), solver.init(p), scale)[0]

    return step(p)


# 1e-12 is some 5e3 ε: hence c=1e4 below.
EXACT = {
    "cg": solvers.cg(100, solvers.relative_residual(1e-12)),
    "dual": solvers.sample_space(),
    "direct": solvers.direct(),
}


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("f", "name"),
    [(SQUARES, "cg"), (CLASSES, "cg"), (None, "cg"), (SQUARES, "dual"), (CLASSES, "direct")],
    ids=["squares", "classes", "chunks", "in sample space", "by Cholesky"],
)
def test_the_step_is_that_of_the_dense_diagonal_blocks(f, name):
    p = start()
    step = solve(solvers.block_diagonal(EXACT[name]), chunks() if f is None else f, p)
    f = f or SQUARES
    _, blocks = dense_blocks(f, p)
    g = slope_of(f, p)
    system = blocks + DAMPING * np.eye(g.size)
    d = -np.linalg.solve(system, g)
    assert_close(ravel(step.direction), d, np.linalg.cond(system), c=1e4)
    np.testing.assert_allclose(step.predicted, g @ d + 0.5 * d @ blocks @ d, rtol=1e-8)
    np.testing.assert_allclose(step.length, np.linalg.norm(d), rtol=1e-8)


@pytest.mark.slow
def test_its_length_and_momentum_are_those_of_the_whole_matrix():
    p = start()
    step = solve(solvers.optimal_scaling(solvers.block_diagonal(EXACT["cg"])), CLASSES, p)
    whole, blocks = dense_blocks(CLASSES, p)
    g, eye = slope_of(CLASSES, p), np.eye(blocks.shape[0])
    d = -np.linalg.solve(blocks + DAMPING * eye, g)
    d *= -(g @ d) / (d @ (whole + DAMPING * eye) @ d)
    assert_close(ravel(step.direction), d, np.linalg.cond(blocks + DAMPING * eye), c=1e4)


def test_each_leaf_is_a_layer_where_asked():
    p = start()
    step = solve(solvers.block_diagonal(EXACT["cg"], by_leaf), SQUARES, p, by_leaf)
    _, blocks = dense_blocks(SQUARES, p, [[i] for i in range(5)])
    g = slope_of(SQUARES, p)
    system = blocks + DAMPING * np.eye(g.size)
    d = -np.linalg.solve(system, g)
    assert_close(ravel(step.direction), d, np.linalg.cond(system), c=1e4)


def test_the_blocks_are_an_operator():
    p = start()

    @jax.jit
    def found(p):
        op, _ = curvature.block_diagonal().at(None, (), p, SQUARES, 0.0)
        assert isinstance(op, BlockDiagonal)
        return so.dense(op, p)

    assert_close(found(p), dense_blocks(SQUARES, p)[1])


def test_a_layer_stops_by_itself():
    """A layer whose system is solved at once takes no more products than it needs."""
    p = {"a": {"w": jnp.ones(1)}, "b": {"w": jnp.linspace(1, 2, 20)}}
    scales = jnp.geomspace(1, 30, 20)
    f = so.sum_of_squares(lambda p: (p["a"]["w"], scales * p["b"]["w"]))
    step = solve(solvers.block_diagonal(solvers.cg(stop=solvers.relative_residual(1e-3))), f, p)
    assert step.report.iterations > 10
    assert step.report.products == 1 + 1 + step.report.iterations + 1


def test_a_nan_anywhere_is_flagged():
    p = start()
    p["last"]["w"] = p["last"]["w"] * jnp.nan
    step = solve(solvers.block_diagonal(solvers.cg(5)), SQUARES, p)
    assert step.report.stopped == Stop.NONFINITE


def test_what_is_not_by_layers_is_refused_in_a_sentence():
    p, g = start(), jax.grad(SQUARES)(start())
    with pytest.raises(TypeError, match="needs the blocks of layers, but the curvature is a Gauss"):
        solvers.block_diagonal(solvers.cg()).update(so.Quadratic(g, so.ggn(SQUARES, p)), (), 0.1)
    with pytest.raises(ValueError, match="give both the same layer_of"):
        solve(solvers.block_diagonal(solvers.cg(), by_leaf), SQUARES, p)
    for make in (solvers.block_diagonal, solvers.prox_linear):
        with pytest.raises(ValueError, match="reads a radius"):
            make(solvers.steihaug())


# The prox-linear step


def convex_minimum(f, p, damping, grad=None):
    """``argmin ℓ(z + J d) + rest·d + ½ λ‖d‖²`` over dense arrays, by SciPy."""
    outputs, rows = jax.jit(lambda p: (f.model(p), so.jacobian(f.model, p)))(p)
    count, shape = outputs.size, outputs.shape
    matrix = np.concatenate([np.reshape(x, (count, -1)) for x in jax.tree.leaves(rows)], axis=1)
    z = np.asarray(outputs).ravel()
    rest = np.zeros(matrix.shape[1]) if grad is None else grad - slope_of(f, p)
    loss = jax.jit(jax.value_and_grad(lambda u: f.loss(u.reshape(shape))))

    def phi(d):
        value, slope = loss(z + matrix @ d)
        bowl = 0.5 * damping * d @ d
        return float(value) + rest @ d + bowl, matrix.T @ slope + rest + damping * d

    found = scipy.optimize.minimize(
        phi, np.zeros(matrix.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-10}
    )
    d = found.x
    return d, float(loss(z + matrix @ d)[0]) + rest @ d - float(loss(z)[0])


PROXIMAL = solvers.prox_linear(EXACT["cg"], max_steps=30, tolerance=1e-14)


def proximal(f, p, grad=None, solver=PROXIMAL, damping=DAMPING):
    g = jax.grad(f)(p) if grad is None else grad
    step = lambda p: solver.update(so.Quadratic(g, so.ggn(f, p)), (), jnp.asarray(damping))[0]
    return jax.jit(step)(p)


@pytest.mark.quick(1)
@pytest.mark.parametrize("damping", [0.1, 1e-3])
def test_it_minimises_the_loss_of_the_linear_model(damping):
    p = start()
    step = proximal(CLASSES, p, damping=damping)
    d, change = convex_minimum(CLASSES, p, damping)
    np.testing.assert_allclose(ravel(step.direction), d, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(step.predicted, change, rtol=1e-7)


def test_what_has_altered_the_gradient_is_a_linear_term():
    p = start()
    grad = jax.tree.map(lambda g: 0.5 * g + 0.01, jax.grad(CLASSES)(p))
    step = proximal(CLASSES, p, grad)
    d, change = convex_minimum(CLASSES, p, DAMPING, ravel(grad))
    np.testing.assert_allclose(ravel(step.direction), d, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(step.predicted, change, rtol=1e-7)


def test_of_squared_errors_it_is_gauss_newtons_in_one_inner_step():
    p = start()
    step = proximal(SQUARES, p, solver=solvers.prox_linear(EXACT["cg"], max_steps=1))
    g = slope_of(SQUARES, p)
    system = dense_blocks(SQUARES, p)[0] + DAMPING * np.eye(g.size)
    d = -np.linalg.solve(system, g)
    assert_close(ravel(step.direction), d, np.linalg.cond(system), c=1e4)
    more = proximal(SQUARES, p)
    assert more.report.products < 3 * step.report.products


@pytest.mark.slow
def test_each_layer_has_a_linear_model_of_its_own():
    p = start()
    step = solve(solvers.block_diagonal(PROXIMAL), CLASSES, p)
    for name in p:
        alone = so.compose(CLASSES.loss, lambda own, name=name: outputs({**p, name: own}))
        d, _ = convex_minimum(alone, p[name], DAMPING)
        np.testing.assert_allclose(ravel(step.direction[name]), d, rtol=1e-5, atol=1e-6)


def test_a_quadratic_that_overshoots_is_halved_until_the_loss_falls():
    """A Poisson rate far too low: Newton's step for its logarithm is far too long."""
    f = so.compose(so.poisson(jnp.array([50.0])), lambda p: p)
    p = jnp.array([-3.0])
    newton = proximal(f, p, solver=solvers.prox_linear(max_steps=1), damping=1e-6)
    loss = lambda step: f(p + step.direction)
    assert loss(newton) < f(p) and newton.direction[0] < 50
    found = proximal(f, p, damping=1e-6)
    np.testing.assert_allclose(p + found.direction, np.log(50.0), rtol=1e-4)


def test_an_objective_without_one_linear_model_is_refused_in_a_sentence():
    p = start()
    with pytest.raises(TypeError, match="but the curvature is a Chunks"):
        solvers.prox_linear().update(
            so.Quadratic(jax.grad(SQUARES)(p), so.ggn(chunks(), p)), (), jnp.asarray(0.1)
        )


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_flagged():
    p = jax.tree.map(lambda x: jnp.asarray(x) * jnp.nan, start())
    assert proximal(CLASSES, p, solver=solvers.prox_linear()).report.stopped == Stop.NONFINITE
