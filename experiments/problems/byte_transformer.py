"""A small transformer on the bytes of the standard library's source: language as it is at hand."""

import dataclasses
import functools
import hashlib
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import secondorder as so
from experiments.problem import Problem

MODULES = (
    "argparse ast asyncio.base_events bdb calendar cmd codecs collections configparser contextlib "
    "copy csv dataclasses datetime decimal difflib dis doctest email.message enum fileinput "
    "fractions ftplib functools gettext glob gzip heapq http.client imaplib inspect ipaddress "
    "json.decoder locale logging mailbox mimetypes optparse os pathlib pdb pickle pickletools "
    "platform plistlib pprint profile pydoc random sched selectors shlex shutil smtplib socket "
    "sqlite3.dbapi2 statistics string subprocess tarfile tempfile textwrap threading tokenize "
    "traceback turtle typing unittest.mock urllib.parse uuid weakref webbrowser zipfile"
).split()
LAYERS, WIDTH, HEADS, CONTEXT = 2, 64, 4, 64
WINDOWS, MANY_WINDOWS = 64, 512  # a step
LOOK = 128  # windows on which the error is measured
TARGETS = (2.5, 2.0)


@functools.cache
def text() -> bytes:
    """The modules' source, one after another; those that this Python lacks are left out."""
    found = []
    for name in MODULES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
            found.append(Path(spec.origin).read_bytes())
    return b"\n".join(found)


def fingerprint() -> str:
    """Of the text: it differs between versions of Python."""
    return hashlib.sha256(text()).hexdigest()[:16]


@functools.cache
def load():
    whole = np.frombuffer(text(), np.uint8).astype(np.int32)
    cut = len(whole) - LOOK * (CONTEXT + 1)
    return {"text": whole[:cut], "held_out": whole[cut:].reshape(LOOK, CONTEXT + 1)}


def windows(count):
    """Batches of so many windows from random places."""

    def stream(data, seed):
        generator = np.random.default_rng(seed)
        places = np.arange(CONTEXT + 1)
        while True:
            starts = generator.integers(0, len(data["text"]) - CONTEXT, count)
            yield {"windows": np.asarray(data["text"])[starts[:, None] + places]}

    return stream


def init(key, data):
    del data

    def kernel(name, fan_in, fan_out, gain=1.0):
        own = jax.random.fold_in(key, sum(ord(c) * 31**i for i, c in enumerate(name)) % 2**31)
        return gain * jax.random.normal(own, (fan_in, fan_out), jnp.float32) / fan_in**0.5

    def layer(i):
        gain = (2 * LAYERS) ** -0.5
        return {
            "norm1": jnp.ones(WIDTH, jnp.float32),
            "norm2": jnp.ones(WIDTH, jnp.float32),
            "qkv": kernel(f"qkv{i}", WIDTH, 3 * WIDTH),
            "out": kernel(f"out{i}", WIDTH, WIDTH, gain),
            "up": kernel(f"up{i}", WIDTH, 4 * WIDTH),
            "down": kernel(f"down{i}", 4 * WIDTH, WIDTH, gain),
        }

    return {
        "bytes": 0.5 * jax.random.normal(jax.random.fold_in(key, 1), (256, WIDTH), jnp.float32),
        "places": 0.1
        * jax.random.normal(jax.random.fold_in(key, 2), (CONTEXT, WIDTH), jnp.float32),
        "layers": [layer(i) for i in range(LAYERS)],
        "norm": jnp.ones(WIDTH, jnp.float32),
        "head": kernel("head", WIDTH, 256),
    }


def _norm(x, scale):
    x = x - x.mean(-1, keepdims=True)
    return scale * x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)


def logits(params, inputs):
    """Pre-normalised layers of causal attention and of units, without biases."""
    x = params["bytes"][inputs] + params["places"]
    batch, time, _ = x.shape
    causal = jnp.tril(jnp.ones((time, time), bool))
    for layer in params["layers"]:
        qkv = _norm(x, layer["norm1"]) @ layer["qkv"]
        q, k, v = jnp.moveaxis(qkv.reshape(batch, time, 3, HEADS, -1), 2, 0)
        scores = jnp.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
        weights = jax.nn.softmax(jnp.where(causal, scores, -1e9), axis=-1)
        mixed = jnp.einsum("bhts,bshd->bthd", weights, v).reshape(batch, time, WIDTH)
        x = x + mixed @ layer["out"]
        x = x + jax.nn.gelu(_norm(x, layer["norm2"]) @ layer["up"]) @ layer["down"]
    return _norm(x, params["norm"]) @ params["head"]


def objective(batch):
    windows = batch["windows"]
    loss = so.softmax_cross_entropy(windows[:, 1:])
    return so.compose(loss, lambda params: logits(params, windows[:, :-1]))


def _description(count: int) -> str:
    return (
        f"{LAYERS} layers of width {WIDTH}, context {CONTEXT}, {count} windows a step; the error "
        f"is the cross-entropy in nats a byte, on {LOOK} windows from the end of the text."
    )


PROBLEM = Problem(
    name="byte-transformer",
    title="A transformer on the bytes of Python's standard library",
    description=_description(WINDOWS),
    load=load,
    init=init,
    objective=objective,
    metrics=lambda params, data: {"error": objective({"windows": data["held_out"]})(params)},
    measure="loss",
    targets=TARGETS,
    steps={"first-order": 600, "quasi-newton": 300, "matrix-free": 100, "dense": 300},
    stream=windows(WINDOWS),
    looks_at=lambda data: {"windows": data["held_out"][:WINDOWS]},
    solved=lambda row: row["error"] <= TARGETS[-1],
    float64=False,
    random_start=True,
    grad_norm_target=1e-9,
    tuning_steps=100,
    look_every=5,
)

#: Batches large enough for a step that solves with the Gauss-Newton matrix of the batch.
LARGE = dataclasses.replace(
    PROBLEM,
    name="byte-transformer-large",
    title="The same transformer, with large batches",
    description=_description(MANY_WINDOWS),
    stream=windows(MANY_WINDOWS),
    steps={"first-order": 300, "quasi-newton": 100, "matrix-free": 60, "dense": 60},
    tuning_steps=60,
    look_every=2,
)
