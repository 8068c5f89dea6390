"""The project's checks, each runnable alone: `nox -s NAME`. Plain pip and venv are enough."""

from pathlib import Path

import nox

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "typecheck", "tests", "conformance"]

IN_PARALLEL = ("-n", "auto", "--dist", "worksteal")
"""A process for each core, which begins with a stretch of the tests and so shares what a module's tests share."""


def install(session: nox.Session, *extras: str) -> None:
    """Install the project, editable, with the given extras."""
    session.install("-e", f".[{','.join(extras)}]" if extras else ".")


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting (ruff)."""
    session.install("ruff>=0.17,<0.18")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Types (mypy --strict)."""
    install(session, "dev")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Unit tests; arguments after -- go to pytest: `-n 0` for one process, a file for its tests alone."""
    install(session, "dev")
    session.run("pytest", *IN_PARALLEL, *session.posargs)


@nox.session
def training(session: nox.Session) -> None:
    """Unit tests of nas, with PyTorch, Optuna and Ray; without them `tests` skips most of them."""
    install(session, "dev", "distributed")
    session.run("pytest", *IN_PARALLEL, "tests/nas", *session.posargs)


@nox.session
def conformance(session: nox.Session) -> None:
    """Generated C against the golden model, byte for byte; arguments after -- go to `tinyformer conformance`."""
    install(session, "conformance")
    session.run("tinyformer", "conformance", *(session.posargs or ["--profile", "ci"]))


@nox.session
def proofs(session: nox.Session) -> None:
    """Primitives in C proven equal to their definitions; --quick after -- leaves out what takes minutes."""
    install(session, "proofs")
    session.run("python", "-m", "conformance.proofs", *session.posargs)


@nox.session
def mutation(session: nox.Session) -> None:
    """Small faults in the C kernels: of how many does the ci profile find each; arguments after --, see docs."""
    install(session, "mutation")
    session.run("python", "-m", "conformance.mutation", *session.posargs)


@nox.session
def mutation_refsim(session: nox.Session) -> None:
    """Small faults in the golden model: does the second opinion find each; arguments after --, such as --sample 100."""
    install(session, "mutation")
    session.run("python", "-m", "conformance.mutation.golden", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Lines and branches of the C kernels that the ci profile reaches, into coverage/; needs clang and LLVM's tools."""
    install(session, "conformance")
    session.run("python", "-m", "conformance.coverage", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Import mutated model files, 60 s; arguments after -- go to the fuzzer: --seconds 3600, --seed, valid files."""
    install(session, "dev")
    session.run("python", "-m", "tests.codegen.fuzz", *session.posargs)


@nox.session
def fuzz_guided(session: nox.Session) -> None:
    """The same, led by code coverage (Atheris, for Linux), until a first finding; arguments after -- as for `fuzz`."""
    install(session, "dev")
    session.install("atheris>=2.3")
    session.run("python", "-W", "ignore", "-m", "tests.codegen.fuzz_guided", *session.posargs)


@nox.session
def litert(session: nox.Session) -> None:
    """TensorFlow Lite models against LiteRT's reference kernels; .tflite files after -- go to `tinyformer litert`."""
    install(session, "dev", "litert")
    session.run("pytest", "tests/codegen/test_tflite_import.py")
    if session.posargs:
        session.run("tinyformer", "litert", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Throughput, and what kernels and networks cost by sparsity, into bench/; of model files after -- as well."""
    install(session, "conformance")
    folder = Path("bench")
    folder.mkdir(exist_ok=True)
    sparsities = [option for percent in (0, 40, 50, 60, 70, 80, 90) for option in ("--sparsity", str(percent))]
    session.run("tinyformer", "bench", "--json", str(folder / "golden-model.json"))
    for what in ("kernels", "network"):
        files = ("--json", str(folder / f"{what}.json"), "--svg", str(folder / f"{what}.svg"))
        session.run("tinyformer", f"bench-{what}", *sparsities, *files)
    if session.posargs:
        session.run("tinyformer", "bench-models", *session.posargs, "--json", str(folder / "models.json"))


@nox.session
def paper(session: nox.Session) -> None:
    """The paper's tables and figures into docs/paper.md; arguments after --: table2, fig10, --data FILE, ..."""
    install(session)
    session.run("tinyformer", "paper", *session.posargs)


@nox.session
def predictor(session: nox.Session) -> None:
    """Fit the predictor of cycles anew; arguments after -- go to `tinyformer fit-predictor`."""
    install(session)
    session.run("tinyformer", "fit-predictor", *session.posargs)


@nox.session
def timing(session: nox.Session) -> None:
    """The cycle model beside published measurements; arguments after -- go to `tinyformer validate-timing`."""
    install(session)
    session.run("tinyformer", "validate-timing", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/."""
    session.install("mkdocs>=1.6,<2", "mkdocs-material>=9.5")
    session.run("mkdocs", "build", "--strict")
