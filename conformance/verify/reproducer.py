"""One step of a generated model as a single C file that shows whether it computes the golden model's bytes.

The kernel, the parameters and the statements are those of the generated folder, as they are there: what is wrong in
them is wrong in the reproducer too. Inputs and expected bytes are the golden model's. A step that is right in the
reproducer and wrong in the image read bytes that something else had overwritten, or was built differently.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from codegen.generate import GeneratedModel
from codegen.program import Step
from refsim.errors import TinyFormerError
from refsim.numerics import Int8Array

_INCLUDE = re.compile(r'^#include "([^"]+)"\n', re.MULTILINE)
_PER_LINE = 24


def render_reproducer(
    model: GeneratedModel, step: Step, inputs: Sequence[Int8Array], expected: Int8Array, about: Sequence[str] = ()
) -> str:
    """The text of the C file.

    Args:
        model: the generated folder.
        step: of its program.
        inputs: what the step reads, int8 of each input's shape; constant inputs are taken from the folder.
        expected: what it must write.
        about: lines for the comment at the top.

    Raises:
        TinyFormerError: the folder's C does not have the step in the form that the generator gives it.
    """
    try:
        source = (model.folder / f"{model.prefix}.c").read_text(encoding="utf-8")
        statements, output = _statements(source, step)
        parameters = _parameters(source, statements)
        kernels = _kernels(model, step, statements)
    except (OSError, UnicodeDecodeError, LookupError) as error:
        raise TinyFormerError(f"{model.folder}: step {step.index} cannot be reproduced: {error}") from error
    constants, offsets = model.program.graph.constants, model.program.plan.tensor_offsets
    given = [(offsets[name], data) for name, data in zip(step.inputs, inputs, strict=True) if name not in constants]
    arrays = [_array(f"tnf_input{i}", data) for i, (_, data) in enumerate(given)] + [_array("tnf_expected", expected)]
    copies = "\n".join(
        f"    tnf_put(tnf_arena + {at}, tnf_input{i}, sizeof tnf_input{i});" for i, (at, _) in enumerate(given)
    )
    core = model.target.core
    definitions = "".join(f"#ifndef {name}\n#define {name}\n#endif\n" for name in model.target.definitions)
    head = "\n".join(f" * {line.replace('*/', '* /')}" for line in about)
    return f"""/* Step {step.index}, {step.operator}, by itself. Exits with 0 where its output is right, else with 1.
 *
 *   cc -std=c99 -O2 -o reproducer <this file> && ./reproducer
 *
 * For the chip, a program that tinyformer's boot code starts (see conformance/firmware):
 *
 *   arm-none-eabi-gcc -mcpu={core} -mthumb -std=c99 -ffreestanding -O2 -c <this file>
 *
{head}
 */
{definitions}
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__) /* headers bring more than one kernel needs */
#pragma GCC diagnostic ignored "-Wunused-function"
#endif

/* ---- The kernel and its headers ---- */

{kernels}
/* ---- Parameters and constants ---- */

{parameters}
/* ---- Inputs, and what the golden model makes of them ---- */

{"".join(arrays)}
static int8_t tnf_arena[{model.arena_bytes}] __attribute__((aligned(16)));

static void tnf_put(int8_t *to, const int8_t *from, size_t bytes)
{{
    for (size_t i = 0; i < bytes; i++) {{
        to[i] = from[i];
    }}
}}

/* Bytes that differ; the index of the first of them. */
static size_t tnf_reproduce(size_t *first)
{{
    int8_t *const at = tnf_arena;
    size_t differ = 0;
    for (size_t i = 0; i < sizeof tnf_arena; i++) {{
        tnf_arena[i] = -91;
    }}
{copies}

{statements}
    for (size_t i = sizeof tnf_expected; i-- != 0;) {{
        if (at[{output} + i] != tnf_expected[i]) {{
            differ++;
            *first = i;
        }}
    }}
    return differ;
}}

#if defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
uint32_t tnf_program(void);
uint32_t tnf_program(void)
{{
    size_t first = 0;
    return tnf_reproduce(&first) != 0;
}}
#else
#include <stdio.h>

int main(void)
{{
    size_t first = 0;
    const size_t differ = tnf_reproduce(&first);
    if (differ == 0) {{
        puts("all {expected.size} bytes are right");
        return 0;
    }}
    printf("%lu of {expected.size} bytes differ, the first is byte %lu: golden model %d, found %d\\n",
           (unsigned long)differ, (unsigned long)first, (int)tnf_expected[first], (int)tnf_arena[{output} + first]);
    return 1;
}}
#endif
"""


def _statements(source: str, step: Step) -> tuple[str, int]:
    """What the run function does in a step, and where in the arena its output lies."""
    pattern = rf"    TRACE_MARK\({step.index}\);\n(.*?)    TRACE_TENSOR\({step.index}, at \+ (\d+), \d+\);"
    found = re.search(pattern, source, re.DOTALL)
    if found is None:
        raise LookupError("its statements were not found")
    return found[1], int(found[2])


def _parameters(source: str, statements: str) -> str:
    """The definitions of the parameters and constant tensors that the statements name, in the order of the source."""
    names = re.findall(r"&(step\w+)|\b(constant\d+)\b", statements)
    wanted = {name for pair in names for name in pair if name}
    kept = []
    for definition in re.finditer(
        r"^static const \w+ (\w+)(?:\[\d+\])? = \{.*?^\};\n", source, re.DOTALL | re.MULTILINE
    ):
        name = definition[1]
        if name in wanted or any(name.startswith(f"{symbol}_") for symbol in wanted if symbol.startswith("step")):
            kept.append(definition[0])
    return "\n".join(kept)


def _kernels(model: GeneratedModel, step: Step, statements: str) -> str:
    """The step's own file where it has one, else the sources of the kernels that it needs, with what they include."""
    folder = model.folder / "kernels"
    seen: set[str] = set()

    def inlined(path: Path) -> str:
        text = path.read_text(encoding="utf-8")
        return _INCLUDE.sub(lambda found: once(found[1]), text)

    def once(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        return inlined(folder / name)

    own = [f"../steps/{name}.c" for name in re.findall(r"\b(\w+_step\d+_\w+)\(at\);", statements)]
    return "\n".join(once(name) for name in own or [f"{source}.c" for source in step.call.sources])


def _array(name: str, data: Int8Array) -> str:
    values = np.ascontiguousarray(data).ravel().tolist()
    lines = [values[start : start + _PER_LINE] for start in range(0, len(values), _PER_LINE)]
    text = "".join(f"    {', '.join(map(str, line))},\n" for line in lines)
    return f"static const int8_t {name}[{len(values)}] = {{\n{text}}};\n\n"
