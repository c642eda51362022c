"""Adapters to other libraries.

``only_extra_args`` is for Optax. Those for Lineax and Optimistix are modules of their own, which
need the extra ``interop`` and are imported by name: ``secondorder.interop.lineax`` and
``secondorder.interop.optimistix``.
"""

from secondorder.interop._extra_args import only_extra_args

__all__ = ["only_extra_args"]
