"""The public names: pinned, importable, and not shadowed by modules."""

import importlib.metadata
import importlib.util
import subprocess
import sys

import pytest

import lapse
import serving

NAMES = {
    "Lapse", "LapseSessionService", "mount", "session_service", "store_from_url",
    "SessionKey", "Status", "Lifecycle", "Change", "Expiries", "LapseError", "Feed",
    "Settings", "Rules", "ConnectionOptions", "Quotas", "BrakeOptions", "RunLimits",
    "WatchOptions", "Bounds", "OperatorOptions", "Authentication", "ArtifactSweeper",
    "TtlPolicy", "Policy", "Targets",
    "Authenticator", "TokenAuthenticator", "JwtOptions", "HeaderAuthenticator", "HeaderOptions",
    "Principal", "Role", "NotAuthenticatedError", "current_principal",
    "bounded", "ServerOptions", "RetentionHooks", "SaveToMemory",
}  # fmt: skip


def test_these_names_are_public_and_no_others():
    assert set(lapse.__all__) == NAMES
    assert lapse.__all__ == sorted(lapse.__all__)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_public_name_can_be_imported_and_no_module_has_the_same_name(name):
    found = getattr(lapse, name)
    assert callable(found)
    assert importlib.util.find_spec(f"lapse.{name}") is None


def test_the_version_is_that_of_the_installed_package():
    assert lapse.__version__ == importlib.metadata.version("lapse")
    done = serving.run("--version")
    assert (done.returncode, done.stdout) == (0, f"lapse {lapse.__version__}\n")


def test_an_unknown_public_name_raises_an_attribute_error():
    with pytest.raises(AttributeError, match="'Lapze'"):
        _ = lapse.Lapze


def test_importing_lapse_and_its_settings_imports_no_adk():
    program = (
        "import sys\n"
        "from lapse import Lapse, Settings, mount, session_service\n"
        "Lapse('sqlite:///:memory:').sweeper\n"
        "print(*(name for name in sys.modules if name.startswith(('google.adk', 'fastapi'))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b""
