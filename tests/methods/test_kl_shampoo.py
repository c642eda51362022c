"""KL-Shampoo and KL-SOAP: the published steps, from fixed gradients; and what makes them right."""

import itertools

import jax
import numpy as np
import pytest
from tolerances import assert_close, condition_of
from training import fixed_gradients, steps_along

import secondorder as so

METHODS = {"kl_shampoo": so.kl_shampoo, "kl_soap": so.kl_soap}
every_method = pytest.mark.parametrize("name", METHODS)


def reference(w, grads, *, lr, b1, b2, eps, f, adam, sides=None, weight_decay=0.0):
    """Lin et al. (2025), in NumPy: the formulas of their section on practical methods, by loops.

    Means are corrected for bias. As in their program the first gradient gives the first bases, by
    ``eigh``, and equal eigenvalues (here so that their product is its mean square), and takes no
    step; a step uses the bases before its own gradient. ``adam`` for KL-SOAP.
    """
    w, rank = w.copy(), w.ndim
    sides = [rank > 1] * rank if sides is None else sides
    sided = [i for i in range(rank) if sides[i]]
    m, v = np.zeros_like(w), np.zeros_like(w)
    gram, q = [np.zeros((d, d)) for d in w.shape], [np.eye(d) for d in w.shape]
    eigenvalues = [None] * rank

    def along(x, i, matrix):
        return np.moveaxis(np.tensordot(matrix, x, axes=(1, i)), 0, i)

    def rotate(x, matrices):
        for i in sided:
            x = along(x, i, matrices[i])
        return x

    def whitened(g, but):
        """``g`` times the inverse root of every factor but one, in the coordinates of the leaf."""
        for j in sided:
            if j != but:
                g = along(g, j, q[j] @ np.diag(eigenvalues[j] ** -0.5) @ q[j].T)
        return g

    for t, g in enumerate(grads, start=1):
        rate = (1 - b2) / (1 - b2**t)
        mean = lambda old, new, rate=rate: (1 - rate) * old + rate * new
        if t == 1:
            start = np.mean(g**2) ** (1 / max(len(sided), 1))
            eigenvalues = [np.full(d, start) for d in w.shape]
        own = list(eigenvalues)
        for i in sided:
            others = [j for j in range(rank) if j != i]
            x = whitened(g, i)
            outer = np.tensordot(x, x, axes=(others, others)) / (g.size / g.shape[i])
            gram[i] = mean(gram[i], outer)
            if t > 1:
                own[i] = mean(eigenvalues[i], np.diag(q[i].T @ outer @ q[i]))
        eigenvalues, back = own, [a.T for a in q]
        if t > 1:
            m = b1 * m + (1 - b1) * g
            rate = (1 - b2) / (1 - b2 ** (t - 1))
            v = (1 - rate) * v + rate * rotate(g, back) ** 2
            if adam or not sided:
                scale = np.sqrt(v)
            else:
                scale = np.ones_like(w)
                for i in sided:
                    wide = eigenvalues[i].reshape([-1 if j == i else 1 for j in range(rank)])
                    scale = scale * np.sqrt(wide)
            m_hat = rotate(m, back) / (1 - b1 ** (t - 1))
            w = w - lr * (rotate(m_hat / (scale + eps), q) + weight_decay * w)
        yield w
        for i in sided:
            if t == 1:
                q[i] = np.linalg.eigh(gram[i])[1][:, ::-1]
            elif (t - 1) % f == 0:
                order = np.argsort(-np.diag(q[i].T @ gram[i] @ q[i]), kind="stable")
                v, eigenvalues[i] = np.take(v, order, axis=i), eigenvalues[i][order]
                q[i] = np.linalg.qr(gram[i] @ q[i][:, order])[0]


@pytest.mark.quick(1)
@pytest.mark.usefixtures("x64")
@every_method
@pytest.mark.parametrize(
    ("f", "max_dim", "weight_decay"), [(1, 100, 0.0), (3, 100, 0.1), (2, 4, 0.0)]
)
def test_it_takes_the_steps_of_the_published_algorithm(name, f, max_dim, weight_decay):
    # The first Grams have full rank: vectors of a null space are the eigensolver's own choice.
    shapes = {"matrix": (5, 5), "kernel": (3, 2, 4), "part": (4, 5), "vector": (5,), "scalar": ()}
    params, grads = fixed_gradients(shapes, 9)
    settings = {"b1": 0.9, "b2": 0.8, "eps": 1e-8, "weight_decay": weight_decay}
    tx = METHODS[name](0.1, refresh_every=f, max_precond_dim=max_dim, **settings)
    found = list(steps_along(tx, params, grads))
    for leaf, shape in shapes.items():
        sides = [len(shape) > 1 and d <= max_dim for d in shape]
        matrices = [np.moveaxis(grads[0][leaf], i, 0).reshape(d, -1) for i, d in enumerate(shape)]
        kappa = max([1.0, *(condition_of(x) ** 2 for x in matrices)])  # of the first Grams
        expected = reference(
            params[leaf],
            [g[leaf] for g in grads],
            lr=0.1,
            f=f,
            adam=name == "kl_soap",
            sides=sides,
            **settings,
        )
        for ours, theirs in zip(found, expected, strict=True):
            assert_close(ours[leaf], theirs, 100 * kappa)


def changes(tx, params, grads):
    found = [params, *steps_along(tx, params, grads)]
    return [
        jax.tree.map(lambda a, b: np.asarray(b - a), a, b) for a, b in itertools.pairwise(found)
    ]


@pytest.mark.quick(1)
@pytest.mark.usefixtures("x64")
@every_method
def test_the_factors_are_those_of_a_kronecker_product(name):
    # Of gradients A^½ Z B^½ the covariance is A ⊗ B: the whitened step has the covariance I.
    rng = np.random.default_rng(0)
    left, right = (rng.normal(size=(d, d)) @ np.diag(np.geomspace(1, 10, d)) for d in (3, 4))
    draw = lambda: {"w": left @ rng.normal(size=(3, 4)) @ right}
    grads = [draw() for _ in range(1500)]
    tx = METHODS[name](1.0, b1=0.0, b2=0.997, refresh_every=1)
    steps = [x["w"].ravel() for x in changes(tx, {"w": np.zeros((3, 4))}, grads)[-1000:]]
    covariance = np.mean([np.outer(x, x) for x in steps], axis=0)
    np.testing.assert_allclose(covariance, np.eye(12), atol=0.2)


@pytest.mark.quick(1)
@pytest.mark.usefixtures("x64")
@every_method
def test_gradients_in_other_units_give_the_same_steps(name):
    params, grads = fixed_gradients({"w": (4, 4), "kernel": (2, 3, 4), "v": (3,)}, 6)
    tx = METHODS[name](0.1, eps=0.0, refresh_every=2)
    ours = changes(tx, params, grads)
    for unit in (1e-30, 1e20):
        scaled = [jax.tree.map(lambda x, unit=unit: unit * x, g) for g in grads]
        for a, b in zip(ours, changes(tx, params, scaled), strict=True):
            jax.tree.map(lambda x, y: assert_close(x, y, 1e4), a, b)


@pytest.mark.quick(1)
@pytest.mark.usefixtures("x64")
@every_method
def test_each_block_of_a_large_axis_has_factors_of_its_own(name):
    params, grads = fixed_gradients({"w": (7, 4)}, 6)
    settings = {"refresh_every": 2}
    whole = changes(METHODS[name](0.1, block_size=4, **settings), params, grads)
    for rows in (slice(0, 4), slice(4, 7)):  # the second is padded
        cut = lambda x, rows=rows: {"w": x["w"][rows]}
        part = changes(METHODS[name](0.1, **settings), cut(params), list(map(cut, grads)))
        for a, b in zip(whole, part, strict=True):
            kappa = max(condition_of(g["w"][rows]) ** 2 for g in grads[:1])
            assert_close(a["w"][rows], b["w"], 100 * kappa)


@pytest.mark.quick(1)
@every_method
def test_a_leaf_whose_first_gradients_are_zero_learns_from_the_first_that_is_not(name):
    params, grads = fixed_gradients({"w": (4, 3)}, 40)
    zeros = [{"w": np.zeros((4, 3))}] * 3
    params, grads = jax.tree.map(np.float32, (params, zeros + grads))
    steps = [x["w"] for x in changes(METHODS[name](0.1), params, grads)]
    assert all(np.all(x == 0) for x in steps[:3])
    sizes = [np.sqrt(np.mean(x**2)) for x in steps[3:]]
    assert all(np.isfinite(sizes)) and max(sizes) < 0.2 and min(sizes) > 1e-3
