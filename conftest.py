"""Fixtures of all tests of the workspace."""

import pytest
from benchmarks.load.certificate import certificate_files


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Paths of a certificate for this machine and of its key."""
    certificate, key = certificate_files(tmp_path_factory.mktemp("tls"))
    return str(certificate), str(key)
