"""Adapters to other libraries.

``only_extra_args`` is for Optax. The adapters for Lineax and Optimistix need the extra ``interop``;
import their modules by name: ``secondorder.interop.lineax`` and ``secondorder.interop.optimistix``.
"""

from secondorder.interop._extra_args import only_extra_args

__all__ = ["only_extra_args"]
