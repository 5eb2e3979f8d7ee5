"""One target under atheris, in a process of its own: libFuzzer ends the process when it is done.

``python -m tests.robustness.fuzz.one TARGET [options of libFuzzer]``
"""

from __future__ import annotations

import logging
import sys
import warnings

import atheris

with atheris.instrument_imports(include=["supabase_rt"]):
    from tests.robustness.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until the runs are used up or a contract is broken."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("error")
    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
