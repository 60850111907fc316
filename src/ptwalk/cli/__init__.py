"""The command line. Each command lives in a module of its own, imported when it is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from .. import __version__
from ..arch.errors import PtwalkError
from . import progress

DONE, NEGATIVE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

app = App(
    name="ptwalk",
    version=__version__,
    help="Walk page tables of x86-64 and arm64 as the hardware does, and account them as Linux does.",
    help_format="plaintext",
    result_action="return_value",
    default_parameter=Parameter(negative=()),
)
_COMMANDS = {
    "info": ("info:info", "What a file is: architecture, paging mode, registers, memory, address spaces."),
    "walk": ("walk:walk", "Walk one virtual address, a line a level, to a physical address or a fault."),
    "maps": ("maps:maps", "List a whole address space, equal neighbours merged."),
    "decode": ("decode:decode", "Show every field of an entry or register value as a bit diagram."),
    "verify": ("verify:verify", "Compare everything in a capture with what its kernel said."),
    "capture": ("capture:capture", "Capture page tables and /proc of running processes of this system."),
    "ptov": ("ptov:ptov", "Every virtual address that leads to a physical one."),
    "diff": ("lint:diff", "What two address spaces, checkpoints or captures map differently."),
    "lint": ("lint:lint", "Suspicious mappings: W+X, dead entries, broken contiguous sets, memory-type aliases."),
    "rmap": ("rmap:rmap", "Linux's rmap accounting: scenarios, vectors, captures, exploration."),
    "report": ("report:report", "One HTML page: walks bit by bit, address spaces that open down to pages, lint."),
    "repl": ("repl:repl", "A prompt for one machine: step through walks, edit entries and registers, see the change."),
    "conform": ("conform:conform", "Run a vector file through the reference walker and the kernel."),
}
for _name, (_target, _help) in _COMMANDS.items():
    app.command(f"ptwalk.cli.{_target}", name=_name, help=_help)
app.register_install_completion_command(help="Install completion for the shell in use (bash, zsh, fish).")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 a negative answer, 2 usage or unreadable input, 130 on Ctrl-C."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def _refuse(sentence: str) -> int:
    print(f"ptwalk: {' '.join(sentence.split())}", file=sys.stderr)
    return BAD_INPUT


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; errors become one sentence on stderr."""
    try:
        with progress.shown():
            result = app(arguments, exit_on_error=False, print_error=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else DONE
    except PtwalkError as error:
        return _refuse(str(error))
    except CycloptsError as error:
        return _refuse(f"{error} (see {' '.join(('ptwalk', *(error.command_chain or ())))} --help)")
    except KeyboardInterrupt:
        print("ptwalk: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of stdout went away: nothing more to say, and no second error at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
