"""``python -m chatwoot_relay``, and the command itself."""

from __future__ import annotations

import gc


def main() -> None:
    """Run the command. What is imported stays: to look for rubbish in it costs a tenth of the start, later pauses."""
    gc.disable()
    from .cli import main as command

    gc.freeze()
    gc.enable()
    command()


if __name__ == "__main__":
    main()
