"""What the packages promise about their shape, checked on what is really loaded and really shipped.

Who may import whom stands in `.importlinter`; here is what a reader of import statements cannot see.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools import runtime_requirements

ROOT = Path(__file__).parent.parent
PACKAGES = ("client", "reconciler", "schema", "web_readonly")
PURE = sorted(
    [*(ROOT / "schema").rglob("*.py"), *(ROOT / "reconciler" / "core").rglob("*.py"), ROOT / "client" / "trust.py"]
)

# Calls that would make pure code depend on the moment or the machine. Import contracts cannot see them: the modules
# that offer them (datetime, pathlib, the builtins) are needed for their values.
IMPURE_CALLS = {
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "date.today",
    "input",
    "io.open",
    "open",
    "print",
    "uuid.uuid1",
    "uuid.uuid4",
    "uuid4",
}
IMPURE_METHODS = {"read_text", "read_bytes", "write_text", "write_bytes", "exists", "is_file", "is_dir", "iterdir"}


def loaded_by(statement: str) -> set[str]:
    """Return the names of all modules that a fresh interpreter has loaded after ``statement``."""
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def heavy(modules: set[str], *names: str) -> set[str]:
    return {name for name in names if name in modules}


def test_a_client_process_loads_nothing_of_the_director():
    modules = loaded_by("import client.cli, client.agent, client.service")

    assert heavy(modules, "reconciler", "web_readonly", "schema.tables") == set()


def test_a_client_process_loads_no_library_of_the_director_extra():
    modules = loaded_by("import client.cli, client.agent")

    extra = (
        "aiohttp",
        "alembic",
        "asyncssh",
        "git",
        "jinja2",
        "jsonschema",
        "prometheus_client",
        "pygit2",
        "sqlalchemy",
        "uvloop",
    )
    assert heavy(modules, *extra) == set()


def test_a_client_that_follows_a_schedule_has_in_memory_what_it_needs_alone():
    modules = loaded_by("import client.cli, client.service, croniter")

    seldom_needed = ("ctypes", "difflib", "rich", "ruamel", "schema.resources", "structlog", "yaml")
    assert heavy(modules, *seldom_needed) == set()


def test_the_dashboard_loads_no_key_no_git_and_no_ssh():
    modules = loaded_by("import web_readonly.app")

    assert heavy(modules, "reconciler", "client", "schema.envelope", "nacl", "git", "pygit2", "asyncssh") == set()


def test_help_of_the_director_loads_none_of_its_adapters():
    modules = loaded_by("import reconciler.cli")

    assert heavy(modules, "aiohttp", "alembic", "asyncssh", "git", "jinja2", "pygit2", "sqlalchemy", "client") == set()


@pytest.mark.parametrize("package", [*PACKAGES, "reconciler.core"])
def test_a_package_is_a_place_and_holds_no_code(package):
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text())

    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(ROOT)))
def test_pure_code_asks_neither_the_clock_nor_the_machine(path):
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]

    impure = [f"{path.name}:{call.lineno}" for call in calls if is_impure(call)]

    assert impure == []


def is_impure(call: ast.expr) -> bool:
    if isinstance(call, ast.Attribute) and call.attr in IMPURE_METHODS:
        return True
    # `datetime.datetime.now` and `datetime.now` are one thing.
    return ".".join(ast.unparse(call).split(".")[-2:]) in IMPURE_CALLS


def test_our_import_names_belong_to_our_distribution_alone():
    owners = importlib.metadata.packages_distributions()

    # An editable installation lists no packages, so that no owner at all is right as well.
    assert {name: sorted(set(owners.get(name, [])) - {"borgmatic-director"}) for name in PACKAGES} == {
        name: [] for name in PACKAGES
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Return the wheel as it would be published, built without asking any package index."""
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(next(directory.glob("*.whl")))


def test_the_wheel_holds_every_file_of_our_packages_and_nothing_else(wheel):
    files = {path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    expected = {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc"}

    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == expected
    assert {f"{package}/py.typed" for package in PACKAGES} <= expected


def test_the_wheel_starts_two_commands(wheel):
    entry_points = next(name for name in wheel.namelist() if name.endswith("/entry_points.txt"))

    assert wheel.read(entry_points).decode().strip().splitlines() == [
        "[console_scripts]",
        "director = reconciler.cli:main",
        "director-client = client.cli:main",
    ]


def test_what_a_client_installs_names_no_library_of_the_director_extra(wheel):
    metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith("/METADATA"))).decode()
    required = [line.split(": ")[1] for line in metadata.splitlines() if line.startswith("Requires-Dist: ")]

    base = {re.split(r"[^a-z-]", requirement)[0] for requirement in required if "extra ==" not in requirement}

    assert "borgmatic" in base
    assert (
        base & {"aiohttp", "alembic", "asyncssh", "gitpython", "jinja2", "pygit2", "sqlalchemy", "uvloop", "watchfiles"}
        == set()
    )


def test_the_lock_has_a_hash_for_everything_and_no_address():
    lock = re.sub(r"\\\n *", "", (ROOT / "requirements.lock").read_text())
    requirements = [line for line in lock.splitlines() if line and not line.lstrip().startswith("#")]

    assert [line for line in requirements if "==" not in line or "--hash=sha256:" not in line] == []
    assert [line for line in lock.splitlines() if "://" in line or "file:" in line or " @ " in line] == []


def test_the_container_installs_the_lock_without_its_development_tools():
    lock = (ROOT / "requirements.lock").read_text()

    installed = runtime_requirements.entries(runtime_requirements.runtime(lock))

    assert {"aiohttp", "borgmatic", "cffi", "jinja2", "pynacl", "requests"} <= set(installed)
    assert {"hatchling", "mypy", "pytest", "ruff", "uv"} & set(installed) == set()
    assert all(text in lock for text in installed.values())
