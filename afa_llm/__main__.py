"""`python -m afa_llm`, as the deepspeed launcher starts it."""

from afa_llm.cli import main

main()
