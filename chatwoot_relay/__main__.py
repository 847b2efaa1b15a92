"""``python -m chatwoot_relay``."""

from .cli import main

main()
