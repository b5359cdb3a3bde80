"""The one place that imports llvmlite, initialises LLVM and serialises calls into it.

LLVM calls hold one process-wide lock anyway, so compiling in threads gains nothing. Ours stands
outside of llvmlite's, because a `fork` must not happen while another thread is inside LLVM: the
child would inherit a lock that nobody gives back.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

from lamina.locks import process_lock

_lock = process_lock()


def lock() -> threading.RLock:
    """The lock to hold during every call into LLVM (re-entrant)."""
    return _lock


@functools.cache
def llvm() -> Any:
    """`llvmlite.binding`, imported at the first call and initialised for this machine's target."""
    with _lock:
        import llvmlite.binding as module

        module.initialize_native_target()
        module.initialize_native_asmprinter()
        # A third of code generation would go into rewriting the addresses of loops, which the
        # generators write as they should be: the code is as fast without (measured on whole steps).
        module.set_option("lamina", "-disable-lsr")
    return module


@functools.cache
def llvm_for_every_target() -> Any:
    """The same, initialised for all targets that LLVM knows (ten times as long)."""
    with _lock:
        llvm().initialize_all_targets()
        llvm().initialize_all_asmprinters()
    return llvm()


def version() -> str:
    """llvmlite's version, which says LLVM's: part of every cache key. Does not load LLVM."""
    import llvmlite

    return f"llvmlite {llvmlite.__version__}"
