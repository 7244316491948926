"""What every folder of tests shares: fixtures, and Hypothesis's settings.

Modules that several folders import stand in `support`, which pytest puts on the path.
"""

import gc

import pytest
from hypothesis import settings

import prefixed
import scratch
from adk_versions import skip_what_adk_lacks

pytest_plugins = ["stores", "services", "servers"]

settings.register_profile("lapse", derandomize=True, deadline=None, database=None)
settings.load_profile("lapse")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--prefix",
        default="",
        metavar="PATH",
        help="run the tests over HTTP, and no others, below this path, such as /api",
    )


def pytest_configure(config: pytest.Config) -> None:
    prefixed.prefix = config.getoption("--prefix")
    scratch.use_memory()


def pytest_collection_finish() -> None:
    """Leave ADK and the tests themselves, a million objects, to no garbage collection."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skip_what_adk_lacks(items)
    if not prefixed.prefix:
        return
    chosen = {f"{module}.py" for module in prefixed.MODULES}
    kept = [
        item
        for item in items
        if item.nodeid.partition("::")[0] in chosen and not item.get_closest_marker("at_root")
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept
