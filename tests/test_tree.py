"""The vector space of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import secondorder as so

TREE = {"a": jnp.array([3.0, -4.0]), "b": (jnp.array(12.0), None), "c": jnp.zeros((0, 2))}


def test_dot_norm_peak_and_size_are_those_of_the_joined_vector():
    other = jax.tree.map(lambda x: x + 1, TREE)
    flat = oracles.flat(TREE)
    assert so.tree.size(TREE) == 3
    np.testing.assert_allclose(so.tree.vdot(TREE, other), flat @ (flat + 1))
    np.testing.assert_allclose(so.tree.norm(TREE), 13.0)
    np.testing.assert_allclose(so.tree.max_abs(TREE), 12.0)


def test_arithmetic_is_leaf_by_leaf():
    x, y = TREE, jax.tree.map(lambda x: 2 * x, TREE)
    flat = oracles.flat(TREE)
    np.testing.assert_allclose(oracles.flat(so.tree.axpy(3.0, x, y)), 5 * flat)
    np.testing.assert_allclose(oracles.flat(so.tree.add(x, y)), 3 * flat)
    np.testing.assert_allclose(oracles.flat(so.tree.scale(-2.0, x)), -2 * flat)
    np.testing.assert_allclose(oracles.flat(so.tree.negative(x)), -flat)
    np.testing.assert_allclose(oracles.flat(so.tree.where(jnp.array(False), x, y)), 2 * flat)
    np.testing.assert_allclose(oracles.flat(so.tree.zeros_like(x)), 0 * flat)


def test_only_what_a_mask_selects_is_kept():
    mask = {
        "a": jnp.array([True, False]),
        "b": (jnp.array(False), None),
        "c": jnp.zeros((0, 2), bool),
    }
    np.testing.assert_array_equal(oracles.flat(so.tree.only(mask, TREE)), [3.0, 0.0, 0.0])


def test_an_empty_tree_is_the_space_of_dimension_zero():
    for empty in ({}, None, (), {"a": None}):
        assert so.tree.size(empty) == 0
        assert so.tree.vdot(empty, empty) == so.tree.norm(empty) == so.tree.max_abs(empty) == 0
        assert so.tree.vdot(empty, empty).dtype == jnp.float32
        assert bool(so.tree.all_finite(empty))


def test_a_dot_product_of_many_bfloat16_entries_keeps_its_digits():
    # In bfloat16 a running sum of ones stops at 256, and the products 1.0078² are rounded.
    x = jnp.full(100_000, 1.0078125, jnp.bfloat16)
    dot = so.tree.vdot([x], [x])
    assert dot.dtype == jnp.float32
    np.testing.assert_allclose(dot, 100_000 * 1.0078125**2, rtol=1e-6)
    np.testing.assert_allclose(so.tree.norm([x]), np.sqrt(100_000) * 1.0078125, rtol=1e-6)
    assert so.tree.vdot(x, x.astype(jnp.float32)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (["bfloat16"], "float32"),
        (["float16", "bfloat16"], "float32"),
        (["float32", "bfloat16"], "float32"),
        (["float32", "float64"], "float64"),
        ([], "float32"),
    ],
)
def test_scalars_about_a_tree_are_at_least_float32(dtypes, expected, x64):
    tree = [jnp.ones(1, dtype) for dtype in dtypes]
    assert so.tree.dtype(tree) == expected
    assert so.tree.dtype([jax.ShapeDtypeStruct((2,), dtype) for dtype in dtypes]) == expected
    for scalar in (so.tree.vdot(tree, tree), so.tree.norm(tree), so.tree.max_abs(tree)):
        assert scalar.dtype == expected
    wide = [x.dtype for x in so.tree.accumulator(tree)]
    assert wide == ["float64" if dtype == "float64" else "float32" for dtype in dtypes]


@pytest.mark.parametrize("size", [1e-30, 1e-25, 1.0, 1e25, 1e30])
def test_the_norm_neither_overflows_nor_underflows(size):
    x = {"a": jnp.array([3.0, 0.0]) * size, "b": jnp.array(-4.0) * size}
    np.testing.assert_allclose(so.tree.norm(x), 5 * size, rtol=1e-6)


def test_the_norm_of_half_precision_leaves_may_exceed_their_range():
    np.testing.assert_allclose(so.tree.norm(jnp.full(4, 6e4, jnp.float16)), 1.2e5, rtol=1e-3)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_what_is_not_finite_shows(bad):
    x = {"a": jnp.array([1.0, bad]), "b": jnp.array(1.0)}
    assert not bool(so.tree.all_finite(x))
    for measure in (so.tree.norm(x), so.tree.max_abs(x)):
        assert jnp.isnan(measure) if jnp.isnan(bad) else measure == jnp.inf
    alike = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([jnp.finfo(jnp.float32).max] * 2)}
    assert bool(so.tree.all_finite(alike))
    assert not bool(jax.jit(so.tree.all_finite)(alike | {"c": jnp.array([1.0, bad])}))


def test_results_take_the_dtype_their_sentence_says():
    half, single = jnp.ones(2, jnp.bfloat16), jnp.ones(2, jnp.float32)
    strong = jnp.float32(2.0)
    assert so.tree.axpy(strong, single, half).dtype == jnp.bfloat16
    assert so.tree.scale(strong, half).dtype == jnp.bfloat16
    assert so.tree.cast(single, half).dtype == jnp.bfloat16
    assert so.tree.accumulator(half).dtype == jnp.float32
    assert so.tree.axpy(strong, half, single).dtype == jnp.float32


def test_zeros_take_abstract_leaves():
    zeros = so.tree.zeros_like({"a": jax.ShapeDtypeStruct((2,), jnp.bfloat16)})
    assert zeros["a"].dtype == jnp.bfloat16 and zeros["a"].shape == (2,)


def test_a_choice_between_states_keeps_integers_keys_and_flags():
    old = {"n": jnp.array(1), "key": jax.random.key(0), "flag": jnp.array(True)}
    new = {"n": jnp.array(2), "key": jax.random.key(1), "flag": jnp.array(False)}
    kept = jax.jit(so.tree.where)(jnp.array(False), new, old)
    assert kept["n"] == 1 and kept["n"].dtype == old["n"].dtype and bool(kept["flag"])
    assert jnp.all(jax.random.key_data(kept["key"]) == jax.random.key_data(old["key"]))


def test_numpy_and_python_numbers_are_leaves_like_any():
    # float64 numbers from NumPy are float32 here, silently: nobody asked for float64
    for tree in ({"a": np.array([3.0, 4.0])}, {"a": [3.0, 4.0]}):
        assert so.tree.dtype(tree) == jnp.float32
        np.testing.assert_allclose(so.tree.norm(tree), 5.0)
        assert so.tree.vdot(tree, tree) == 25.0
        doubled = so.tree.axpy(1.0, tree, tree)
        np.testing.assert_allclose(oracles.flat(doubled), [6.0, 8.0])
        for x in jax.tree.leaves([doubled, so.tree.cast(tree, tree), so.tree.accumulator(tree)]):
            assert x.dtype == jnp.float32
        so.tree.check_real(tree)


@pytest.mark.parametrize(
    ("leaf", "sentence"),
    [
        (jnp.arange(2), "dtype int32, which has no derivative"),
        (np.arange(2), "which has no derivative"),
        (jnp.ones(2, bool), "dtype bool"),
        (3, "dtype int32"),
        (jnp.ones(2, jnp.complex64), "is complex .complex64.*real and imaginary parts"),
        (1j, "is complex"),
        (jax.ShapeDtypeStruct((2,), jnp.int8), "dtype int8"),
        (jax.random.key(0), "has dtype key"),
    ],
    ids=["jax", "numpy", "flags", "int", "complex", "1j", "abstract", "key"],
)
def test_the_first_leaf_that_is_not_real_is_named(leaf, sentence):
    with pytest.raises(TypeError, match=rf"the start\['layer'\]\[1\].*{sentence}"):
        so.tree.check_real({"layer": [jnp.ones(2), leaf]}, "the start")


def test_trees_that_do_not_match_are_refused_in_a_sentence():
    like = {"a": jnp.ones(2), "b": (jnp.ones(3),)}
    so.tree.check_match(jax.tree.map(jnp.zeros_like, like), like, "x", "y")
    so.tree.check_match(jax.eval_shape(lambda: like), like, "x", "y")
    with pytest.raises(ValueError, match="x must have the tree structure of y, but x is"):
        so.tree.check_match({"a": jnp.ones(2)}, like, "x", "y")
    with pytest.raises(ValueError, match=r"x\['b'\]\[0\] has shape \(1,\), but y has shape \(3,\)"):
        so.tree.check_match({"a": jnp.ones(2), "b": (jnp.ones(1),)}, like, "x", "y")


def test_small_and_large_leaves_are_paired_with_their_own():
    rng = np.random.default_rng(0)
    sizes = {"a": (3,), "b": (70, 80), "c": (), "d": (5000,), "e": (2, 2)}
    x, y = ({k: rng.normal(size=s).astype(np.float32) for k, s in sizes.items()} for _ in range(2))
    np.testing.assert_allclose(so.tree.vdot(x, y), oracles.flat(x) @ oracles.flat(y), rtol=1e-4)
    np.testing.assert_allclose(so.tree.max_abs(x), np.abs(oracles.flat(x)).max())
    for name in sizes:
        assert not so.tree.all_finite(x | {name: np.full(sizes[name], np.nan, np.float32)})
