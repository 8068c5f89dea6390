"""The pre-commit hook: `tinyformer verify` for each model that a commit changes.

pre-commit starts it as `python -m conformance.pre_commit [OPTION VALUE]... MODEL...`: the options of the hook's `args`,
then the changed files. Every option of `tinyformer verify` has a value.
"""

import subprocess
import sys
from collections.abc import Sequence


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options with their values, and models.

    Args:
        arguments: options as "--name value" or "--name=value"; whatever else is there is a model's file.
    """
    options: list[str] = []
    models: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("--"):
            models.append(argument)
            continue
        options.append(argument)
        if "=" not in argument:
            options += [value for value in [next(rest, None)] if value is not None]
    return options, models


def main(arguments: Sequence[str]) -> int:
    """Verify one model after the other.

    Returns:
        The highest exit code of `tinyformer verify`: 0 where all models are safe.
    """
    options, models = split_arguments(arguments)
    worst = 0
    for model in models:
        print(f"== {model}", flush=True)
        done = subprocess.run([sys.executable, "-m", "tinyformer", "verify", model, *options], check=False)
        worst = max(worst, done.returncode if done.returncode >= 0 else 3)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
